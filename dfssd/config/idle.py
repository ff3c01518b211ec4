"""Which keys of a line have no effect in its run, and why; read from the tables of keys."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from dfssd.config.arguments import argument
from dfssd.config.line import CommandLine, WrongValueError
from dfssd.config.schema import DETECT, DISTILLED, GROWN, KEYS, ONLY_GROWN, SEMANTIC, STUDENTS, Key
from dfssd.config.values import Needs

_PLACES = {DETECT: "detection, and this run segments", SEMANTIC: "segmentation, as in recipe=mffmetal"}


def shown(value: Any) -> str:
    """A value as it is typed on the command line."""
    return str(value).lower() if isinstance(value, bool) or value is None else str(value)


def idle_keys(line: CommandLine) -> Mapping[str, str]:
    """The keys of a recipe or of a line that cannot act in this run: key -> why, to follow its name.

    Defaults, and what is switched off and would be anyway, are not among them; nor are keys of a line that resumes a
    run, whose configuration is not all there.
    """
    found = {}
    for key in dict.fromkeys([*line.recipe, *line.given]):
        if key not in {*line.own, *line.train}:  # options of terms, and what is refused in any case
            continue
        try:
            why = None if _says_nothing(line, key) else next(_reasons(line, key), None)
        except WrongValueError:
            continue
        if why:
            found[key] = why
    return found


def is_harmless(name: str, value: Any, default: Any) -> bool:
    """Whether a refused argument of Ultralytics asks for nothing: it has its default, or is off as it is by default.

    Args:
        name: The argument.
        value: Its value.
        default: That of Ultralytics; None if it has none.
    """
    row = argument(name)
    off = value is None or value is False or (row.zero_is_off and value == 0)
    return not row.always_refused and (value == default or (off and (row.zero_is_off or default in (None, False))))


def _says_nothing(line: CommandLine, name: str) -> bool:
    """Whether a key has its default, or is switched off, so that nobody expects an effect of it."""
    value, key = line.value(name), KEYS.get(name)
    zero_is_off = (key or argument(name)).zero_is_off
    if value is None or value is False or (zero_is_off and value == 0):
        return True
    return line.is_default(name) and not (key is not None and key.promises)


def _reasons(line: CommandLine, name: str) -> Iterator[str]:
    key = KEYS.get(name)
    if key is not None and key.task not in {None, line.task}:
        yield f"acts only in {_PLACES.get(str(key.task), key.task)}; leave it out, or choose another recipe"
    elif key is None and line.task == SEMANTIC and (why := argument(name).idle_for_masks):
        yield f"has no effect on masks: {why}"
    if name not in line.given or line.own["resume"]:
        return
    if key is not None:
        yield from _of_the_method(line, key)
        if key.trains_teacher:
            yield from _without_teacher(line)
    yield from _unmet(line, key.needs if key is not None else argument(name).needs)


def _of_the_method(line: CommandLine, key: Key) -> Iterator[str]:
    """Why a key does not act with this ``student_training``."""
    if key.methods is not None:
        if line.method in key.methods:
            return
        if key.methods == ONLY_GROWN:
            yield f"acts only with student_training={GROWN}, as in recipe=sdidd"
        elif key.methods == STUDENTS:
            yield f"has no effect: student_training={line.method} trains no student, and nothing is exported"
        else:
            yield f"has no effect with student_training={line.method}; leave it out"
    elif key.distills and key.always_in != line.task and not _distills(line):
        yield f"has no effect: no network is distilled with student_training={line.method}; leave it out"


def _distills(line: CommandLine) -> bool:
    """Whether a network learns from a teacher and unlabeled images: the student, or a new teacher."""
    return line.method in {DISTILLED, GROWN} or bool(line.own["teacher_rounds"])


def _without_teacher(line: CommandLine) -> Iterator[str]:
    """Why no teacher is trained on the labels."""
    if line.method == GROWN:
        if line.own["steps"] is None or line.own["teacher"] is not None:  # else the base is trained like a teacher
            yield "has no effect: the teacher is the model trained so far; leave it out"
    elif line.own["teacher"] is None:
        yield "has no effect with teacher=none; leave it out"
    elif line.own["teacher_kind"] == "ema":
        yield "has no effect with teacher_kind=ema, which follows the student; leave it out"


def _unmet(line: CommandLine, needs: Sequence[Needs]) -> Iterator[str]:
    for need in needs:
        if not need.met(value := line.value(need.key)):
            yield f"has no effect with {need.key}={shown(value)}: {need.instead}"
