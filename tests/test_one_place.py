"""A key has one default (cfg/default.yaml) and one description (tables of config/), and no module a second one."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from dfssd import config
from dfssd.config import ALIASES, KEYS
from dfssd.config.arguments import ARGUMENTS

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "dfssd"
GENERIC = {"task", "format", "name", "data", "split", "resize", "normalize", "resume", "recipe", "mode", "map"}
GENERIC |= {"project", "score"}
"""Last parts of keys that are common words: other things are called so, too."""

TUNED = {name.rpartition(".")[2] for name, value in config.defaults().items() if value is not None} - GENERIC
"""What a key is called wherever its value is handed on: the last part of its name."""

OWN = {name for name in KEYS if "_" in name or "." in name}
"""Keys whose whole name is no common word."""

LISTED = OWN | {name for name, argument in ARGUMENTS.items() if "_" in name or argument.idle_for_masks}
"""Names that tell a list of keys from other lists."""

OTHERS = {
    ("runs/model_selection.py", "val_every"): "of runs from before there was such a key",
    ("benchmark/grid.py", "labeled"): "the oracle is trained on all labels",
    ("benchmark/whole.py", "baseline"): "Ultralytics trains none either",
    ("benchmark/whole.py", "exist_ok"): "a training that was stopped is begun anew in its own folder",
    (
        "benchmark/whole.py",
        "teacher_epochs",
    ): "a comparison of times needs a teacher that accepts boxes, not a good one",
    ("datasets/account.py", "labeled"): "a role of a file",
    ("config/schema.py", "baseline"): "a flag of the table",
    ("config/arguments.py", "baseline"): "a flag of the table",
    ("incremental/protocol.py", "exist_ok"): "a run of a protocol is begun anew in its own folder",
    ("incremental/protocol.py", "modes"): "a section of protocol.yaml",
    ("pseudo_labels/fusion.py", "iou"): "overlap of boxes that are fused",
    ("pseudo_labels/quality.py", "iou"): "overlap of a match",
    ("runs/stages.py", "exist_ok"): "an argument of Ultralytics for the folder of a training",
}
"""Things that have the name of a key and are something else: (file, name) -> what."""


def literal(node: ast.expr | None) -> object:
    """Value of an expression that is written out; None if it is None, or computed."""
    if isinstance(node, ast.Call):  # field(default=...), field(default_factory=lambda: ...)
        return next((literal(k.value) for k in node.keywords if k.arg in {"default", "default_factory"}), None)
    if isinstance(node, ast.Lambda):
        return literal(node.body)
    try:
        return ast.literal_eval(node) if node is not None else None
    except ValueError:
        return None


def key_of(name: str) -> str:
    """The last part of the key that a name stands for: of ``TAU0``, ``DEFAULT_TAU0`` and ``pseudo.tau0`` it is tau0."""
    return name.lower().rpartition(".")[2].removeprefix("default_").removeprefix("_")


def defaults_in(path: Path) -> Iterator[tuple[str, object]]:
    """Names and values of everything in a file that is a default of something.

    These are defaults of parameters and of fields, constants of modules and classes (``TAU0 = 0.2``), entries of
    dictionaries under the name of a key, and what a look-up by the name of a key falls back to.
    """
    tree = ast.parse(path.read_text(encoding="utf-8"))
    bodies = [node for node in ast.walk(tree) if isinstance(node, (ast.Module, ast.ClassDef))]
    for line in (line for node in bodies for line in node.body):
        if isinstance(line, ast.AnnAssign):
            yield from named([(line.target, line.value)])
        elif isinstance(line, ast.Assign):
            yield from named([(target, line.value) for target in line.targets])
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            taken = [*node.args.posonlyargs, *node.args.args]
            positional = zip(taken[len(taken) - len(node.args.defaults) :], node.args.defaults, strict=True)
            yield from named([*positional, *zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True)])
        elif isinstance(node, ast.Dict):
            entries = [(k, v) for k, v in zip(node.keys, node.values, strict=True) if isinstance(k, ast.Constant)]
            # roles are called like keys, and what stands beside them there are texts and colors
            yield from named((k, v) for k, v in entries if k.value in OWN or not isinstance(literal(v), str))
        elif isinstance(node, ast.BoolOp) and isinstance(node.op, ast.Or) and isinstance(node.values[0], ast.Call):
            yield from named([(argument, node.values[-1]) for argument in node.values[0].args[:1]])
        elif isinstance(node, ast.Call):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in {"get", "setdefault", "pop", "getattr"} and len(node.args) >= 2:
                yield from named([(node.args[-2], node.args[-1])])
            elif called == "dict":
                yield from named((keyword, keyword.value) for keyword in node.keywords)


def named(pairs: Iterable[tuple[ast.AST, ast.expr | None]]) -> Iterator[tuple[str, object]]:
    """The keys that parameters, targets and strings stand for, with their values where these are written out."""
    for place, node in pairs:
        name = next((v for a in ("arg", "id", "value") if isinstance(v := getattr(place, a, None), str)), None)
        if name and (value := literal(node)) is not None:
            yield key_of(name), value


def lists_of_keys(path: Path) -> Iterator[set[str]]:
    """Sets, tuples, lists and dictionaries in a file that name three or more keys."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, (ast.Set, ast.Tuple, ast.List, ast.Dict)):
            parts = node.keys if isinstance(node, ast.Dict) else node.elts
            named = {e.value for e in parts if isinstance(e, ast.Constant) and isinstance(e.value, str)}
            if len(named & LISTED) >= 3:
                yield named & LISTED


def modules() -> list[tuple[str, Path]]:
    """Modules of the package by their place in it; terms have options, and defaults of these, of their own."""
    found = [(path.relative_to(PACKAGE).as_posix(), path) for path in sorted(PACKAGE.rglob("*.py"))]
    return [(place, path) for place, path in found if not place.startswith("distillation/terms/")]


def test_defaults_stand_in_the_yaml_file_alone() -> None:
    for place, path in modules():
        clash = {(n, str(v)) for n, v in defaults_in(path) if n in TUNED and (place, n) not in OTHERS}
        assert not clash, f"{place}: {clash} have their default in cfg/default.yaml"


def test_no_other_module_lists_keys() -> None:
    for place, path in modules():
        if place not in {"config/schema.py", "config/arguments.py"}:
            assert not list(lists_of_keys(path)), f"{place} lists {next(lists_of_keys(path))}"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("def f(a, tau0=0.5, *, iou=0.6): ...", {"tau0": 0.5, "iou": 0.6}),
        ("class C:\n    kd: float = 0.0\n    lr_steps: tuple = (0.5, 0.8)", {"kd": 0.0, "lr_steps": (0.5, 0.8)}),
        ("class C:\n    kd: float = field(default=-1)", {"kd": -1}),
        ("class C:\n    kd: float = field(default_factory=lambda: 3)\n    tau0 = 0.5", {"kd": 3, "tau0": 0.5}),
        ("TAU0 = 0.2\nDEFAULT_TAU_MAX = 0.3\ndef f():\n    tau_low = 0.5", {"tau0": 0.2, "tau_max": 0.3}),
        ('TUNED = {"pseudo.tau0": 0.25, "x": 1}', {"tau0": 0.25}),
        ('TUNED = dict(tau0=0.25), {"tau_max": 0.5}', {"tau0": 0.25, "tau_max": 0.5}),
        ('x = given.get("strong_view", 0.0)', {"strong_view": 0.0}),
        ('x = given.get("pseudo.tau0") or 0.5', {"tau0": 0.5}),
        (
            'x = given.pop("tau0", 0.5), getattr(c, "kd", 1), given.setdefault("iou", 2)',
            {"tau0": 0.5, "kd": 1, "iou": 2},
        ),
        ("g = lambda iou=0.7: iou", {"iou": 0.7}),
        ("def f(tau0=None, *, iou=other): ...", {}),
    ],
)
def test_the_search_for_defaults_finds_them(tmp_path: Path, text: str, found: dict[str, object]) -> None:
    (tmp_path / "a.py").write_text(text + "\n", encoding="utf-8")
    assert {name: value for name, value in defaults_in(tmp_path / "a.py") if name in TUNED} == found


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('OURS = {"strong_view", "unsup_weight", "freeze_bn"}', True),
        ('OURS = {"strong_view": 1, "unsup_weight": 2, "freeze_bn": 3}', True),
        ('OURS = ("mosaic", "mixup", "hsv_h")', True),
        ('OURS = ("mosaic", "mixup", "parts")', False),
    ],
)
def test_the_search_for_lists_finds_them(tmp_path: Path, text: str, found: bool) -> None:
    (tmp_path / "a.py").write_text(text + "\n", encoding="utf-8")
    assert bool(list(lists_of_keys(tmp_path / "a.py"))) is found


def test_quickstart_knows_the_same_aliases() -> None:
    """It runs before the package can be imported, so it has the ones that it needs."""
    source = ast.parse((ROOT / "scripts" / "quickstart.py").read_text(encoding="utf-8"))
    [own] = [
        ast.literal_eval(node.value)
        for node in source.body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == "ALIASES"
    ]
    assert own and own.items() <= ALIASES.items()
