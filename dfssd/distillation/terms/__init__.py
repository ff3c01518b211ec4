"""The distillation terms by the names they have in recipes. A new method is one file here and one line below."""

from __future__ import annotations

import inspect
from typing import Any

from dfssd.distillation.terms.base import PairShape, Term
from dfssd.distillation.terms.crd import CrossResponseCls, CrossResponseDfl, CrossResponseGiou
from dfssd.distillation.terms.cwd import ChannelWise
from dfssd.distillation.terms.ded import Decoupled, Structure
from dfssd.distillation.terms.drd import InstanceRelation, PixelRelation
from dfssd.distillation.terms.fgd import FocalGlobal
from dfssd.distillation.terms.giou import GiouResponse
from dfssd.distillation.terms.hwjs import HierarchicalJS
from dfssd.distillation.terms.ld import Localisation
from dfssd.distillation.terms.mgd import MaskedGenerative
from dfssd.distillation.terms.mimic import Mimic
from dfssd.distillation.terms.pkd import Pearson
from dfssd.distillation.terms.response import ClsResponse, DflResponse, LogitMSE
from dfssd.distillation.terms.sdidd import ElasticBox, IncrementalBox, IncrementalCls, IncrementalFeature

__all__ = ["TERMS", "PairShape", "Term", "term_meanings", "term_options"]

TERMS: dict[str, type[Term]] = {
    "hwjs": HierarchicalJS,
    "response_cls": ClsResponse,
    "response_dfl": DflResponse,
    "response_giou": GiouResponse,
    "logit_mse": LogitMSE,
    "crd_cls": CrossResponseCls,
    "crd_dfl": CrossResponseDfl,
    "crd_giou": CrossResponseGiou,
    "ded": Decoupled,
    "ded_structure": Structure,
    "drd_pixel": PixelRelation,
    "drd_instance": InstanceRelation,
    "cwd": ChannelWise,
    "fgd": FocalGlobal,
    "ld": Localisation,
    "mgd": MaskedGenerative,
    "mimic": Mimic,
    "pkd": Pearson,
    "sdidd_cls": IncrementalCls,
    "sdidd_box": IncrementalBox,
    "sdidd_feature": IncrementalFeature,
    "erd_box": ElasticBox,
}


def term_options() -> dict[str, dict[str, Any]]:
    """Own options of every term with their defaults, read from the constructors: name -> {option: default}."""
    return {
        name: {
            option: parameter.default
            for option, parameter in inspect.signature(term).parameters.items()
            if parameter.kind is inspect.Parameter.KEYWORD_ONLY
        }
        for name, term in TERMS.items()
    }


def term_meanings() -> dict[str, str]:
    """One line about every term, for ``--help``: name -> first line of its docstring."""
    return {name: (inspect.getdoc(term) or "").partition("\n")[0] for name, term in TERMS.items()}
