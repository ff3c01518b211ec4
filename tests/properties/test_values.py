"""Words of the command line: whatever is typed becomes a value or one sentence, and what we write we can read."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dfssd.config import ALIASES, parse_arguments, parse_value
from dfssd.errors import UserError

WORDS = st.from_regex(r"[A-Za-z][A-Za-z0-9_./ -]{0,12}[A-Za-z0-9]", fullmatch=True)
SPECIAL = {"true", "on", "yes", "false", "off", "no", "none", "null"}
NUMBERS = st.one_of(st.integers(), st.floats(allow_nan=False, allow_infinity=False))
LISTS = st.lists(st.one_of(NUMBERS, st.booleans(), WORDS), max_size=4)
KEYS = st.from_regex(r"[a-z][a-z0-9_]{0,8}(\.[a-z][a-z0-9_]{0,8})?", fullmatch=True).filter(
    lambda key: key not in {*ALIASES, "name", "project"}
)


def shown(value: Any) -> str:
    """A value as the program itself writes it into a command line."""
    return "none" if value is None else str(value)


@given(st.one_of(NUMBERS, st.booleans(), st.none(), LISTS))
def test_what_is_written_is_read_back(value) -> None:
    again = parse_value(shown(value))
    assert again == value and type(again) is type(value)


@given(WORDS.filter(lambda word: word.strip().lower() not in SPECIAL))
def test_a_plain_word_stays_as_it_is(word) -> None:
    assert parse_value(word) == word


@given(st.lists(WORDS.filter(lambda w: w.lower() not in SPECIAL and w == w.strip()), min_size=1, max_size=4))
def test_lists_of_bare_words(words) -> None:
    """As a shell delivers ``names=[a,b]``, without quotes."""
    assert parse_value(f"[{','.join(words)}]") == words


CODE = st.text(st.sampled_from("[](){}:,'\"\\0123456789.eEjxb+-_ aTN\n\x00#"), max_size=20)


@given(st.one_of(st.text(), CODE))
@example("{[1]: 2}")
@example("{{1}}")
@example("(" * 300)
@example("-" * 5000 + "1")
@example("9" * 5000)
@example("1" + "+1j" * 2)
@example("\x00")
@example("'\\d'")
def test_any_text_is_a_value(text) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        parse_value(text)


@given(st.lists(st.one_of(st.text(max_size=12), CODE, st.sampled_from(["--", "a=1", "--a", "=", "--=", "a="]))))
def test_any_line_is_read_or_rejected(words) -> None:
    try:
        given = parse_arguments(words)
    except UserError:
        return
    assert all(isinstance(key, str) for key in given)


@given(st.dictionaries(KEYS, st.one_of(NUMBERS, st.booleans(), st.none(), LISTS), max_size=5), st.data())
def test_the_three_spellings_of_an_argument_are_one(values, data) -> None:
    words = []
    for key, value in values.items():
        spelling = data.draw(st.sampled_from(["{}={}", "--{}={}", "--{} {}"]))
        key = key.replace("_", "-") if spelling.startswith("--") and data.draw(st.booleans()) else key
        if spelling.endswith(" {}"):
            words += [f"--{key}", shown(value)]
        else:
            words.append(spelling.format(key, shown(value)))
    assert parse_arguments(words) == values


@given(KEYS, WORDS, WORDS)
def test_a_key_given_twice_is_rejected(key, first, second) -> None:
    with pytest.raises(UserError, match="is given twice"):
        parse_arguments([f"{key}={first}", f"--{key}={second}"])
