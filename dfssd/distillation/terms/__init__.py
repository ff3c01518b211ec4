"""The distillation terms by the names they have in recipes. A new method is one file here and one line below."""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass
from typing import Any

from dfssd.distillation.heads import TAPS
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

__all__ = [
    "TERMS",
    "PairShape",
    "Term",
    "TermOption",
    "described_options",
    "option_problem",
    "term_meanings",
    "term_options",
]

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


def option_problem(name: str, **options: Any) -> str | None:
    """What the constructor of a term says against these options, for a small pair of networks; None: nothing."""
    taps = dict.fromkeys(TAPS, (4,))
    try:
        TERMS[name](PairShape((4,), (4,), 16, 2, taps, taps), **options)
    except (TypeError, ValueError) as e:
        return " ".join(str(e).split())
    return None


@dataclass(frozen=True)
class TermOption:
    """An option of a term, for ``--help``.

    Attributes:
        default: Its default.
        allowed: Its range in words, as the constructor of the term says it.
        meaning: What it does, as the docstring of that constructor says it.
        choices: Its values, if they are few.
    """

    default: Any
    allowed: str
    meaning: str
    choices: tuple[str, ...] = ()


def described_options(name: str) -> dict[str, TermOption]:
    """Own options of a term with defaults, ranges, and meanings."""
    text = inspect.getdoc(TERMS[name].__init__) or ""
    found = {}
    for option, default in term_options()[name].items():
        documented = re.search(rf"^ +{option}: (.+(?:\n {{6,}}.+)*)", text, re.M)
        problem = option_problem(name, **{option: "?"})
        allowed = (problem or "").partition("must be ")[2]
        meaning = " ".join(documented[1].split()) if documented else ""
        _, of, words = allowed.rpartition("one of: ")
        choices = tuple(words.split(", ")) if of else ("true", "false") if isinstance(default, bool) else ()
        found[option] = TermOption(default, words, meaning, choices)
    return found
