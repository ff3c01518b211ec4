"""The strict configuration: ``cfg/default.yaml`` < recipe < command line, with Ultralytics' own keys beside ours."""

from dfssd.config import outside
from dfssd.config.arguments import ARGUMENTS
from dfssd.config.parse import flatten, nearest, parse_arguments, parse_value, section_of
from dfssd.config.record import UNSET, Difference, differences, flat_settings
from dfssd.config.resolution import (
    Config,
    NameSpaces,
    OutsideTerm,
    defaults,
    find_recipe,
    help_lines,
    read_recipe,
    resolve,
    without_idle,
)
from dfssd.config.schema import (
    ALIASES,
    DENSE,
    DETECT,
    GROWN,
    KEYS,
    REGIONS,
    RESUMABLE,
    SEMANTIC,
    TERM_OPTIONS,
    Protocol,
)

__all__ = [
    "ALIASES",
    "ARGUMENTS",
    "DENSE",
    "DETECT",
    "GROWN",
    "KEYS",
    "REGIONS",
    "RESUMABLE",
    "SEMANTIC",
    "TERM_OPTIONS",
    "UNSET",
    "Config",
    "Difference",
    "NameSpaces",
    "OutsideTerm",
    "Protocol",
    "defaults",
    "differences",
    "find_recipe",
    "flat_settings",
    "flatten",
    "help_lines",
    "nearest",
    "outside",
    "parse_arguments",
    "parse_value",
    "read_recipe",
    "resolve",
    "section_of",
    "without_idle",
]
