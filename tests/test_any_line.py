"""Whatever is typed, a line is accepted or refused in lines of one problem each: nothing else is raised.

The profile of CI tries some hundred lines, always the same. A longer search, with other lines each time:

    DFSSD_LINES=20000 python -m pytest tests/test_any_line.py -n 0
"""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ultralytics.utils import DEFAULT_CFG_DICT

from dfssd.config import KEYS, TERM_OPTIONS, parse_arguments
from dfssd.distillation.terms import term_options
from dfssd.errors import UserError
from dfssd.runs.configure import configure

LINES = int(os.environ.get("DFSSD_LINES", "0"))
"""Lines of a longer search; 0: those of CI."""

OPTIONS = [f"{term}.{option}" for term, own in term_options().items() for option in (*TERM_OPTIONS, *own)]

ODD = (
    "", " ", "0", "-0", "-1", "1", "2", "0.5", "-0.5", "1.0", "1e400", "-1e400", "nan", "1e-300", "9" * 20, "9" * 5000,
    "1_000", "0x10", "1j", "true", "false", "none", "None", "auto", "abc", "foo.pt", "a.yaml", "[]", "[1]", "[1,2,3]",
    "[[1]]", "[true]", "[none]", "[-1]", "[1.5]", "[1e400]", "['a',1]", "(1,2)", "{}", "{'a': 1}", "{1}", "b'x'",
    "...", "'a'", "a\nb", "a\rb", "1\n", "\x00", "a\x1b[31m", "\u2028", "\ud800", "\udcff", "é", "💥", "../../x", "/",
    "/etc/passwd", "~", "C:\\x", "mffmetal-6000000", "mffmetal-0", "mffmetal-x", "yolov8n.yaml", "[" * 3000, "(" * 3000,
    "-" * 3000, "1," * 500, "a" * 300, "a/" * 3000, "=", "a=b", "--", "$(x)", "*", "0,1", "-1,5", "cpu", "1:2",
    "online", "offline", "dense", "tensorboard,tensorboard", "_",
)  # fmt: skip
"""Values that were typed, or might be, where something else was expected."""

VALUES = st.one_of(
    st.sampled_from(ODD),
    st.sampled_from([repr(wrong) for key in KEYS.values() for wrong in key.check.wrong()]),
    st.integers(-(10**6), 10**30).map(str),
    st.floats().map(repr),
    st.lists(st.one_of(st.integers(-9, 99), st.floats(-2, 2), st.booleans(), st.text(max_size=3)), max_size=4).map(
        repr
    ),
    st.text(max_size=12),
)
NAMES = st.one_of(
    st.sampled_from(sorted(KEYS)),
    st.sampled_from(sorted(DEFAULT_CFG_DICT)),
    st.sampled_from(OPTIONS),
    st.text(st.characters(codec="utf-8", exclude_characters="="), max_size=8),
)
WORDS = st.one_of(st.tuples(NAMES, VALUES).map("=".join), st.text(max_size=10))


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder without anything that a line could name."""
    return tmp_path_factory.mktemp("empty")


def check(words: list[str]) -> None:
    """Let a line be read, as the command line does before anything is computed."""
    try:
        configure(parse_arguments(words))
    except UserError as e:
        for problem in e.problems:
            assert len(problem.splitlines()) == 1, repr(problem)
            assert not {unicodedata.category(c) for c in problem} & {"Cc", "Cs"}, repr(problem)


def test_every_key_with_every_odd_value(empty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line of all keys for each value: all problems of a line are found at once."""
    monkeypatch.chdir(empty)
    for value in ODD:
        check([f"{name}={value}" for name in (*KEYS, *DEFAULT_CFG_DICT, *OPTIONS) if name != "recipe"])
    assert not list(empty.iterdir()), "reading a line writes nothing"


@settings(
    max_examples=LINES or 80,
    derandomize=not LINES,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(words=st.lists(WORDS, min_size=1, max_size=4))
def test_any_line_is_accepted_or_refused(words: list[str], empty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(empty)
    check(words)
