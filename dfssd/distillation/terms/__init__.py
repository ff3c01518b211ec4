"""The distillation terms by the names they have in recipes. A new method is one file here and one line below."""

from __future__ import annotations

import inspect
from typing import Any

from dfssd.distillation.terms.base import PairShape, Term
from dfssd.distillation.terms.hwjs import HierarchicalJS
from dfssd.distillation.terms.response import ClsResponse, DflResponse, LogitMSE

__all__ = ["TERMS", "PairShape", "Term", "term_meanings", "term_options"]

TERMS: dict[str, type[Term]] = {
    "hwjs": HierarchicalJS,
    "response_cls": ClsResponse,
    "response_dfl": DflResponse,
    "logit_mse": LogitMSE,
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
