"""The strict configuration: ``cfg/default.yaml`` < recipe < command line, with Ultralytics' own keys beside ours.

Three kinds of keys share one flat, dotted name space:

* **own** keys stand in ``cfg/default.yaml`` (``labeled``, ``pseudo.tau0``);
* **term options** are ``<term>.<option>`` (``hwjs.weight``) and are checked against the signature of the term;
* **Ultralytics keys** (``epochs``, ``imgsz``) are checked by Ultralytics and passed on.

Anything else is an error that names the nearest key. Nothing here imports Ultralytics or torch: the two foreign name
spaces are handed in.
"""

from __future__ import annotations

import ast
import difflib
import math
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from dfssd.errors import UserError
from dfssd.rules import check_task, check_together

ROOT = Path(__file__).resolve().parents[1]
DEFAULT_PATH = ROOT / "cfg" / "default.yaml"
RECIPES = ROOT / "cfg" / "recipes"

ALIASES = {
    "teacher_model": "teacher",
    "student_model": "student",
    "dataset": "data",
    "threshold": "pseudo.tau0",
    "pseudo": "pseudo.mode",
}
"""The spellings of the original project and a short form, mapped to ours."""

TERM_OPTIONS = {"weight": 0.0, "schedule": "constant", "share": 0.2}
"""Options that every term has besides those in its own signature."""

FOREIGN = {
    "model": "use student= (and teacher=)",
    "distill_model": "use teacher=; the method is chosen by recipe= (recipe=ultralytics is Ultralytics' own)",
    "dis": "set the weight of a term instead, for example hwjs.weight=2",
    "fraction": "use labeled= (share of labels) or limit= (share of images)",
    "time": "use epochs=; budgets are matched in optimizer steps, not in hours",
    "mode": "this command always trains",
    "single_cls": "all stages must agree on the classes; merge them in the data set instead",
    "classes": "all stages must agree on the classes; drop them in the data set instead",
    "cutmix": "it chooses its patches by boxes, which unlabelled images have not; use mixup= or mosaic=",
    "compile": "compiled training is not available together with distillation",
    "rect": "batches mix images of two lists and need one shape",
    "val": "the best checkpoint is chosen on the validation images",
    "save": "checkpoints are what resume= continues from",
    "save_period": "the best and the last checkpoint are kept",
    "cfg": "use recipe=path/to/recipe.yaml",
    "save_dir": "use project= and name=",
    "quantize": "train first, then quantize with Ultralytics' exporter",
}
"""Ultralytics keys that would silently mean something else here, with the way to say it."""


def _number(low: float, high: float, *, whole: bool = False, open_low: bool = False) -> Callable[[Any], str | None]:
    kind = "a whole number" if whole else "a number"
    bounds = f"{'>' if open_low else '>='} {low:g}" + ("" if math.isinf(high) else f" and <= {high:g}")

    def check(value: Any) -> str | None:
        good = isinstance(value, int if whole else (int, float)) and not isinstance(value, bool)
        good = good and (value > low if open_low else value >= low) and value <= high
        return None if good else f"must be {kind} {bounds}"

    return check


def _one_of(*choices: Any) -> Callable[[Any], str | None]:
    shown = ", ".join(str(c).lower() if isinstance(c, bool) else str(c) for c in choices)
    return lambda v: None if any(v == c and type(v) is type(c) for c in choices) else f"must be one of: {shown}"


def _optional(check: Callable[[Any], str | None]) -> Callable[[Any], str | None]:
    return lambda v: None if v is None else check(v)


def _text(value: Any) -> str | None:
    return None if isinstance(value, str) and value.strip() else "must be a text"


def _labeled(value: Any) -> str | None:
    if isinstance(value, float) and 0 < value <= 1:
        return None
    if isinstance(value, int) and not isinstance(value, bool) and value >= 1:
        return None
    return "must be a share in (0, 1] written with a point (0.1, 1.0) or a number of images (200)"


def _ratio(value: Any) -> str | None:
    good = isinstance(value, list) and len(value) == 3 and all(isinstance(v, (int, float)) and v > 0 for v in value)
    return None if good and abs(sum(value) - 1) < 1e-6 else "must be three positive shares that add up to 1"


def _texts(value: Any) -> str | None:
    if isinstance(value, str):
        return None
    good = isinstance(value, list) and value and all(isinstance(v, str) for v in value)
    return None if good else "must be a text or a list of texts"


def _layers(value: Any) -> str | None:
    if value == "auto" or (isinstance(value, list) and value and all(isinstance(v, int) and v >= 0 for v in value)):
        return None
    return "must be auto or a list of layer numbers, for example [15,18,21]"


def _steps(value: Any) -> str | None:
    good = isinstance(value, str) or (isinstance(value, list) and all(isinstance(v, int) for v in value))
    return None if good else "must be the numbers of classes of the steps, such as 3,3"


def _shares(value: Any) -> str | None:
    good = isinstance(value, list) and all(isinstance(v, (int, float)) and 0 < v < 1 for v in value)
    return None if good else "must be none or a list of shares between 0 and 1, for example [0.5,0.8]"


def _crop(value: Any) -> str | None:
    good = isinstance(value, list) and len(value) == 4 and all(isinstance(v, int) and v >= 0 for v in value)
    return None if good and value[2] > value[0] and value[3] > value[1] else "must be [x1, y1, x2, y2] in pixels"


_boolean = _one_of(True, False)
_unit = _number(0, 1)
CHECKS: dict[str, Callable[[Any], str | None]] = {
    "recipe": _text,
    "task": _one_of("detect", "semantic"),
    "data": _optional(_text),
    "teacher": _optional(_text),
    "student": _text,
    "unlabeled": _optional(_texts),
    "labeled": _labeled,
    "limit": _optional(_number(1, math.inf, whole=True)),
    "split": _optional(_text),
    "split_ratio": _ratio,
    "names": _optional(_texts),
    "missing_label": _one_of("unlabeled", "background"),
    "skip_bad": _boolean,
    "data_dir": _text,
    "preprocess.resize": _optional(_number(32, math.inf, whole=True)),
    "preprocess.normalize": _boolean,
    "preprocess.clahe": _boolean,
    "preprocess.crop": _optional(_crop),
    "preprocess.pad": _boolean,
    "teacher_train": _one_of("auto", True, False),
    "teacher_epochs": lambda v: None if v == "auto" else _number(1, math.inf, whole=True)(v),
    "teacher_min_batches": _number(1, math.inf, whole=True),
    "pseudo.tau_low": _unit,
    "pseudo.tau0": _unit,
    "pseudo.tau_max": _unit,
    "pseudo.ema_decay": _number(0, 0.999999),
    "pseudo.iou": _unit,
    "pseudo.mode": _one_of("offline", "online", "both"),
    "pseudo.weigh": _boolean,
    "pseudo.precision": _optional(_number(0, 1, open_low=True)),
    "pseudo.tta": _boolean,
    "pseudo.teachers": _optional(_texts),
    "teacher_kind": _one_of("frozen", "ema"),
    "teacher_rounds": _number(0, 10, whole=True),
    "student_training": _one_of("distilled", "ultralytics", "grown", "skip"),
    "baseline": lambda v: None if isinstance(v, bool) else _text(v),
    "guard": _boolean,
    "guard_patience": lambda v: None if v == "auto" else _number(1, math.inf, whole=True)(v),
    "unlabeled_ratio": _number(0, math.inf, open_low=True),
    "strong_view": _unit,
    "unsup_weight": _number(0, math.inf),
    "unsup_schedule": _text,
    "layers": _layers,
    "balance": _one_of("fixed", "auto"),
    "steps": _optional(_steps),
    "modes": _texts,
    "step_labels": _one_of("new", "all"),
    "new_only": _boolean,
    "freeze_bn": _boolean,
    "freeze_features": _boolean,
    "compare": _optional(_texts),
    "seg.ce": _number(0, math.inf),
    "seg.dice": _number(0, math.inf),
    "seg.boundary": _number(0, math.inf),
    "seg.kd": _number(0, math.inf),
    "seg.tau": _number(0, math.inf, open_low=True),
    "seg.symmetries": _boolean,
    "seg.jitter": _unit,
    "seg.lr_steps": _optional(_shares),
    "seg.lr_factor": _number(0, 1, open_low=True),
    "selftest_steps": _number(1, math.inf, whole=True),
    "format": _text,
    "parity.box_px": _number(0, math.inf),
    "parity.score": _number(0, math.inf),
    "parity.map": _number(0, math.inf),
    "project": _text,
    "name": _optional(_text),
    "exist_ok": _boolean,
    "resume": lambda v: None if isinstance(v, bool) else _text(v),
}
"""Value check of each own key; the keys are the same as in ``cfg/default.yaml`` (tested)."""


@dataclass(frozen=True)
class Config:
    """A resolved configuration.

    Attributes:
        own: Own keys, flat and dotted, complete.
        terms: Active distillation terms with ``weight`` > 0: name -> options, in the order of the recipe.
        train: Ultralytics training arguments given by recipe or user; the rest keeps Ultralytics' defaults.
        given: What the user typed, key -> value, to compare with on resume.
    """

    own: Mapping[str, Any]
    terms: Mapping[str, Mapping[str, Any]]
    train: Mapping[str, Any]
    given: Mapping[str, Any] = field(default_factory=dict)

    def __getitem__(self, key: str) -> Any:
        """Value of an own key by its dotted name."""
        return self.own[key]

    def section(self, name: str) -> dict[str, Any]:
        """Own keys below ``name.``, without that prefix."""
        return {k.partition(".")[2]: v for k, v in self.own.items() if k.startswith(f"{name}.")}


def parse_value(text: str) -> Any:
    """Read one command-line value as Ultralytics does: numbers, lists, true/false/none (any case), else text."""
    word = text.strip().lower()
    if word in {"true", "on", "yes"}:
        return True
    if word in {"false", "off", "no"}:
        return False
    if word in {"none", "null", ""}:
        return None
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        pass
    if text.startswith("[") and text.endswith("]"):  # lists of bare words, as shells deliver them
        return [parse_value(part.strip()) for part in text[1:-1].split(",") if part.strip()]
    return text


def parse_arguments(argv: list[str]) -> dict[str, Any]:
    """Read ``key=value``, ``--key value`` and ``--key=value`` alike into a flat dict.

    Raises:
        UserError: A word without a key, a ``--key`` without a value, or a key given twice.
    """
    given: dict[str, Any] = {}
    words = list(argv)
    while words:
        word = words.pop(0)
        key, sign, value = word.partition("=")
        if word.startswith("--") and not sign:
            if not words or words[0].startswith("--"):
                raise UserError(f"{word} has no value: write {word} VALUE or {word[2:]}=VALUE")
            value = words.pop(0)
        elif not sign:
            raise UserError(f"'{word}' is not an argument: write key=value (see --help)")
        key = key.lstrip("-").replace("-", "_")
        key = ALIASES.get(key, key)
        if key in given:
            raise UserError(f"{key} is given twice: keep one")
        # a comma list such as device=0,1 must not become a tuple; text keys keep names that look like numbers
        parsed = parse_value(value)
        given[key] = value if isinstance(parsed, tuple) or key in {"name", "project"} else parsed
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


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping; a broken file is a :class:`UserError` with its line."""
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as e:
        raise UserError(f"cannot read {path}: {e}") from e
    except yaml.YAMLError as e:
        raise UserError(f"{path} is not valid YAML: {' '.join(str(e).split())}") from e
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise UserError(f"{path} must hold 'key: value' lines")
    return tree


def defaults() -> dict[str, Any]:
    """The own keys with their defaults, flat."""
    tree = read_yaml(DEFAULT_PATH)
    tree.pop("terms")
    return flatten(tree)


def find_recipe(name: str) -> Path:
    """Path of a recipe by name or path.

    Raises:
        UserError: No such recipe; the known ones are listed.
    """
    path = Path(name) if name.endswith((".yaml", ".yml")) else RECIPES / f"{name}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in RECIPES.glob("*.yaml")))
        raise UserError(f"recipe={name}: no such recipe; known: {known}, or a path to a .yaml file")
    return path


def nearest(key: str, known: Collection[str]) -> str:
    """``"; did you mean 'x'?"`` for a misspelt key, or nothing when no key is near."""
    close = difflib.get_close_matches(key, known, n=1, cutoff=0.6)
    return f"; did you mean '{close[0]}'?" if close else " (see --help)"


def resolve(
    given: Mapping[str, Any],
    *,
    ultralytics_keys: Collection[str],
    term_options: Mapping[str, Mapping[str, Any]],
) -> Config:
    """Merge defaults, recipe and ``given`` into a :class:`Config`.

    Args:
        given: Flat dict as :func:`parse_arguments` returns it.
        ultralytics_keys: Names of all Ultralytics arguments.
        term_options: Registered terms: name -> {option: default}.

    Raises:
        UserError: Unknown key, wrong value, unknown recipe, term or term option.
    """
    own = defaults()
    terms: dict[str, dict[str, Any]] = {}
    train: dict[str, Any] = {}
    recipe = find_recipe(str(given.get("recipe", own["recipe"])))
    recipe_tree = read_yaml(recipe)
    recipe_terms = recipe_tree.pop("terms", None) or {}
    if not isinstance(recipe_terms, Mapping) or not all(isinstance(v, Mapping) for v in recipe_terms.values()):
        raise UserError(f"{recipe}: terms must be a mapping of term to its options, for example hwjs: {{weight: 1.0}}")
    known = {*own, *ultralytics_keys, *(f"{t}.{o}" for t, os in term_options.items() for o in {*os, *TERM_OPTIONS})}

    if "terms" in given:
        raise UserError("terms is a section of a recipe; on the command line set one option, such as hwjs.weight=2")
    layers = (
        (f"in {recipe.name}: ", {**flatten(recipe_tree), **flatten(recipe_terms)}),
        ("", given),
    )
    for where, values in layers:
        for name, value in values.items():
            key = ALIASES.get(name, name)
            if key == "teacher" and value == "none":  # YAML reads it as a text, the command line as nothing
                value = None
            if key in own:
                if problem := CHECKS[key](value):
                    raise UserError(f"{where}{key}={value} {problem}")
                own[key] = value
            elif key in FOREIGN:
                raise UserError(f"{where}{key} is not available here: {FOREIGN[key]}")
            elif key in ultralytics_keys:
                train[key] = value
            elif key in known:
                term, _, option = key.partition(".")
                terms.setdefault(term, {})[option] = value
            else:
                raise UserError(f"{where}unknown key '{key}'{nearest(key, known)}")
    active = {}
    for term, options in terms.items():
        merged = {**TERM_OPTIONS, **options}
        for option, check in (("weight", _number(0, math.inf)), ("share", _number(0, math.inf, open_low=True))):
            if problem := check(merged[option]):
                raise UserError(f"{term}.{option}={merged[option]} {problem}")
        if merged["weight"] > 0:
            active[term] = merged
    for key in given:
        term, _, option = key.partition(".")
        if term in term_options and option != "weight" and term not in active:
            raise UserError(f"{key} has no effect: {term} is switched off; add {term}.weight=1, or leave it out")
    if own["balance"] == "fixed" and (shares := [key for key in given if key.endswith(".share") and key in known]):
        raise UserError(f"{shares[0]} acts with balance=auto only; add balance=auto, or set {shares[0][:-6]}.weight")
    check_task(own, {**active, **given}, flatten(recipe_tree))
    check_together(own, given, defaults())
    return Config(own=own, terms=active, train=train, given=dict(given))


def help_lines() -> list[tuple[str, str, str]]:
    """Own keys for ``--help``: (key, default, meaning), read from the comments of ``cfg/default.yaml``."""
    rows, section = [], ""
    for line in DEFAULT_PATH.read_text(encoding="utf-8").splitlines():
        match = re.match(r"^(?P<indent> *)(?P<key>\w+):(?P<value>[^#]*)(# (?P<meaning>.+))?$", line)
        if not match:
            continue
        key, value = match["key"], match["value"].strip()
        if not match["indent"]:
            section = "" if value else f"{key}."
        if value:
            rows.append((f"{section}{key}" if match["indent"] else key, value, match["meaning"]))
    return rows
