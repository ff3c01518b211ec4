"""The grammar of the command line: words in, a flat dict of dotted keys and typed values out."""

from __future__ import annotations

import ast
import difflib
from collections.abc import Collection, Mapping
from typing import Any

from dfssd.config.schema import ALIASES
from dfssd.errors import UserError

WORDS = {"name", "project"}
"""Keys whose value stays a string even if it looks like a number."""


def parse_value(text: str) -> Any:
    """Read one command-line value as Ultralytics does: numbers, lists, true/false/none (any case), else a string."""
    word = text.strip().lower()
    if word in {"true", "on", "yes"}:
        return True
    if word in {"false", "off", "no"}:
        return False
    if word in {"none", "null", ""}:
        return None
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):  # all that its documentation names
        pass
    if text.startswith("[") and text.endswith("]"):  # lists of bare words, as shells deliver them
        return [parse_value(part.strip()) for part in text[1:-1].split(",") if part.strip()]
    return text


def parse_arguments(argv: list[str]) -> dict[str, Any]:
    """Read ``key=value``, ``--key value`` and ``--key=value`` alike into a flat dict.

    Raises:
        UserError: Words without a key, a ``--key`` without a value, or a key given twice; all of them at once.
    """
    given: dict[str, Any] = {}
    problems: list[str] = []
    words = list(argv)
    while words:
        word = words.pop(0)
        key, sign, value = word.partition("=")
        if word.startswith("--") and not sign:
            if not words or words[0].startswith("--"):
                problems.append(f"{word} has no value: write {word} VALUE or {word[2:]}=VALUE")
                continue
            value = words.pop(0)
        elif not sign:
            problems.append(f"'{word}' is not an argument: write key=value (see --help)")
            continue
        key = key.lstrip("-").replace("-", "_")
        key = ALIASES.get(key, key)
        if key in given:
            problems.append(f"{key} is given twice: keep one")
        # a comma list such as device=0,1 must not become a tuple
        parsed = parse_value(value)
        given[key] = value if isinstance(parsed, tuple) or key in WORDS else parsed
    if problems:
        raise UserError(*problems)
    return given


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mapping -> flat dict with dotted keys; empty mappings vanish."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{name}."))
        else:
            flat[name] = value
    return flat


def nearest(key: str, known: Collection[str]) -> str:
    """``"; did you mean 'x'?"`` for a misspelled key, or a pointer to the help when no key is near."""
    close = difflib.get_close_matches(key, known, n=1, cutoff=0.6)
    return f"; did you mean '{close[0]}'?" if close else " (see --help)"


def section_of(key: str) -> str:
    """What stands before the first dot of a key: a section, a term, or the key itself."""
    return key.partition(".")[0]
