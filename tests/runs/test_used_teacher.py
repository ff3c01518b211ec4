"""Keys of a teacher that is trained, in a run that uses one as it is."""

from dataclasses import replace

from dfssd.runs.checks import tell_used_teacher
from tests.configured import DEFAULTS


def test_keys_of_a_teacher_that_is_not_trained_are_named(capsys) -> None:
    tell_used_teacher(replace(DEFAULTS, given={"epochs": 3, "teacher_epochs": 5, "teacher_train": "auto"}))
    assert capsys.readouterr().out.startswith("warning: teacher_epochs: no effect, since the teacher is used as it is")
    tell_used_teacher(replace(DEFAULTS, given={"epochs": 3}))
    assert capsys.readouterr().out == ""
