"""The configuration of a run, checked by this package, by Ultralytics and by the distillation terms."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ultralytics.cfg import get_cfg
from ultralytics.utils import DEFAULT_CFG_DICT

from dfssd.config import Config, NameSpaces, OutsideTerm, outside, resolve
from dfssd.distillation.schedules import SCHEDULES
from dfssd.distillation.terms import TERMS, find_term, option_problem, options_of, term_options
from dfssd.distillation.terms.base import FeatureTerm
from dfssd.log import LOGGER
from dfssd.process import trust_files
from dfssd.trust.limits import set_limits


def configure(given: Mapping[str, Any]) -> Config:
    """Resolve parsed arguments and check every value, before anything is computed.

    What files may do in this process (``trust``, ``limits``) is settled here, before the first of them is read.

    Args:
        given: Flat dict as :func:`~dfssd.config.parse.parse_arguments` returns it.

    Raises:
        UserError: Unknown keys, values that Ultralytics or a term would reject in the middle of a run, or
            contradictory combinations; all problems at once.
    """
    config = resolve(given, name_spaces())
    trust_files(config["trust"])
    set_limits(config.limits)
    for name in config.terms:
        if name in TERMS and name in outside.installed():
            LOGGER.warning(f"{name} is dfssd's own distillation term; an installed package has one of that name, too")
    return config


def name_spaces() -> NameSpaces:
    """The keys of Ultralytics and of the registered terms."""
    return NameSpaces(
        training=DEFAULT_CFG_DICT,
        terms=term_options(),
        feature_terms={name for name, term in TERMS.items() if issubclass(term, FeatureTerm)},
        schedules=SCHEDULES,
        training_problem=_training_problem,
        term_problem=lambda name, options: option_problem(name, **options),
        outside=_outside_term,
    )


def _outside_term(name: str) -> OutsideTerm | None:
    """A term from outside, which is imported."""
    if outside.find(name) is None:
        return None
    term = find_term(name)
    return OutsideTerm(options_of(term), issubclass(term, FeatureTerm))


def _training_problem(key: str, value: Any) -> str | None:
    if key == "amp":  # takes more values here: dfssd.hardware
        return None
    usual = DEFAULT_CFG_DICT[key]
    if isinstance(value, bool) and isinstance(usual, (int, float)) and not isinstance(usual, bool):
        return f"{key}={value}: must be a number"  # Ultralytics takes true for 1
    try:
        get_cfg(overrides={key: value})
    except (TypeError, ValueError, SyntaxError) as e:
        return " ".join(str(e).split())
    return None
