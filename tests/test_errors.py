"""The message for users: always one line for each problem, whatever a file is called."""

from __future__ import annotations

import pytest

from dfssd.errors import UserError, report_problems


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("plain.png", "plain.png"),
        ("two\nlines\r.png", "two\\nlines\\r.png"),
        ("tab\t\x1b[31m.png", "tab\\t\\x1b[31m.png"),
        ("a\u2028b\x85c", "a\\u2028b\\x85c"),
        ("\udcff.png", "\\udcff.png"),
        ("缺陷 é\xa0ok", "缺陷 é\xa0ok"),
    ],
)
def test_each_problem_is_one_line(name: str, shown: str, capsys: pytest.CaptureFixture[str]) -> None:
    error = UserError(f"{name}: is broken; repair it", "and another one")
    assert error.problems == (f"{shown}: is broken; repair it", "and another one")
    assert str(error) == "\n".join(error.problems)
    assert report_problems(error) == 2
    assert capsys.readouterr().err.splitlines() == [f"error: {shown}: is broken; repair it", "error: and another one"]
