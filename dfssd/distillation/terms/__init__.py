"""The distillation terms by the names they have in recipes. A new method is one file here and one line below.

One that lies elsewhere needs neither: :func:`find_term` knows it by its module or by an entry point.
"""

from __future__ import annotations

import inspect
import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dfssd.config import TERM_OPTIONS, outside
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
from dfssd.errors import UserError
from dfssd.log import LOGGER
from dfssd.trust.classes import allow

__all__ = [
    "TERMS",
    "PairShape",
    "Term",
    "TermOption",
    "build_terms",
    "described_options",
    "find_term",
    "installed_terms",
    "is_term",
    "option_problem",
    "options_of",
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


def is_term(name: str) -> bool:
    """Whether ``name`` is that of a term, of this package or from outside; nothing is imported."""
    return name in TERMS or outside.find(name) is not None


def find_term(name: str) -> type[Term]:
    """A term by its name: one of this package, of the entry points of an installed one, or ``module:Class``.

    Modules are looked for where Python looks for them, and then in the working folder.

    Raises:
        UserError: There is none of that name, it cannot be imported, or it is no term.
    """
    if name in TERMS:
        return TERMS[name]
    point = outside.find(name)
    if point is None:
        raise UserError(f"there is no distillation term {name}: see dfssd --help")
    if (here := os.getcwd()) not in sys.path:
        sys.path.append(here)  # for good: the checkpoints of a training hold the term, too
    try:
        found = point.load()
    except Exception as e:  # it runs code of others
        raise UserError(
            f"the distillation term {name} cannot be imported ({type(e).__name__}: {e}): its module must be installed, "
            "or lie in the working folder"
        ) from e
    if not (inspect.isclass(found) and issubclass(found, Term)):
        raise UserError(f"{name} is no distillation term: it must be a subclass of dfssd.distillation.terms.Term")
    if taken := sorted({*options_of(found)} & {*TERM_OPTIONS}):
        raise UserError(f"{name}: its option {taken[0]} is called like one that every term has; rename it")
    allow(found)
    return found


def installed_terms() -> dict[str, type[Term]]:
    """All terms that have a name: those of this package, and those of the entry points of installed ones.

    One that cannot be loaded is left out, and logged as an error.
    """
    found = dict(TERMS)
    for name in outside.installed():
        try:
            found[name] = find_term(name)
        except UserError as e:
            LOGGER.error(str(e))
    return found


def build_terms(terms: Mapping[str, Mapping[str, Any]], shape: PairShape) -> dict[str, Term]:
    """The terms for a pair of networks: label -> term, from name -> options, those that every term has included."""
    return {
        outside.label(name): find_term(name)(shape, **{k: v for k, v in options.items() if k not in TERM_OPTIONS})
        for name, options in terms.items()
    }


def options_of(term: type[Term]) -> dict[str, Any]:
    """Own options of a term with their defaults, read from its constructor."""
    return {
        option: parameter.default
        for option, parameter in inspect.signature(term).parameters.items()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    }


def term_options(terms: Mapping[str, type[Term]] = TERMS) -> dict[str, dict[str, Any]]:
    """Own options of every term with their defaults: name -> {option: default}."""
    return {name: options_of(term) for name, term in terms.items()}


def term_meanings(terms: Mapping[str, type[Term]] = TERMS) -> dict[str, str]:
    """One line about every term, for ``--help``: name -> first line of its docstring."""
    return {name: (inspect.getdoc(term) or "").partition("\n")[0] for name, term in terms.items()}


def option_problem(name: str, **options: Any) -> str | None:
    """What the constructor of a term says against these options, for a small pair of networks; None: nothing."""
    taps = dict.fromkeys(TAPS, (4,))
    try:
        find_term(name)(PairShape((4,), (4,), 16, 2, taps, taps), **options)
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
    term = find_term(name)
    text = inspect.getdoc(term.__init__) or ""
    found = {}
    for option, default in options_of(term).items():
        documented = re.search(rf"^ +{option}: (.+(?:\n {{6,}}.+)*)", text, re.M)
        problem = option_problem(name, **{option: "?"})
        allowed = (problem or "").partition("must be ")[2]
        meaning = " ".join(documented[1].split()) if documented else ""
        _, of, words = allowed.rpartition("one of: ")
        choices = tuple(words.split(", ")) if of else ("true", "false") if isinstance(default, bool) else ()
        found[option] = TermOption(default, words, meaning, choices)
    return found
