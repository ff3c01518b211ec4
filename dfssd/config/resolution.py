"""From defaults, recipe and command line to one checked :class:`Config`.

Three kinds of keys share one flat, dotted name space:

* **own** keys are in ``cfg/default.yaml`` (``labeled``, ``pseudo.tau0``) and have a row in :mod:`dfssd.config.schema`;
* **term options** are ``<term>.<option>`` (``hwjs.weight``) and are checked against the signature of the term, which
  may lie outside this package (``my_module:MyTerm.weight``, :mod:`dfssd.config.outside`);
* **Ultralytics' arguments** (``epochs``, ``imgsz``) are checked by Ultralytics and passed on.

Anything else is an error that names the nearest key. Nothing here imports Ultralytics or torch: the keys that
are not our own are passed in (:class:`NameSpaces`).
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from dfssd import resources
from dfssd.config.arguments import argument
from dfssd.config.idle import idle_keys, is_harmless
from dfssd.config.line import CommandLine, ValidKeys
from dfssd.config.outside import label
from dfssd.config.parse import flatten, nearest
from dfssd.config.rules import problems
from dfssd.config.schema import ALIASES, KEYS, TERM_CHECKS, TERM_OPTIONS
from dfssd.config.sections import ParitySection, PseudoSection, SegSection
from dfssd.config.values import is_beyond_all_bounds, is_too_long, listed
from dfssd.errors import UserError
from dfssd.files import read_yaml
from dfssd.trust.limits import Limits

DEFAULT_PATH = resources.folder("cfg") / "default.yaml"
RECIPES = resources.folder("cfg") / "recipes"

TRAINING_DEFAULTS: Mapping[str, int] = {"imgsz": 640, "batch": 16, "epochs": 100, "seed": 0}
"""Ultralytics' own defaults of the arguments that this package reads itself (tested)."""


@dataclass(frozen=True)
class OutsideTerm:
    """A distillation term from outside this package.

    Attributes:
        options: Its options with their defaults; None if it was not loaded: any are taken.
        is_feature_term: It compares feature maps.
    """

    options: Mapping[str, Any] | None
    is_feature_term: bool


@dataclass(frozen=True)
class NameSpaces:
    """The keys that are not ours, with the checks of their values.

    Attributes:
        training: Ultralytics' arguments with their defaults.
        terms: Options of each registered term with their defaults.
        feature_terms: Names of the terms that compare feature maps.
        schedules: Names of the registered schedules.
        training_problem: Why Ultralytics rejects a value of its argument; None if it does not.
        term_problem: Why a term rejects its own options; None if it does not.
        outside: A term that is not registered here, by its name; None if there is none. Raises
            :class:`~dfssd.errors.UserError` for one that cannot be loaded.
    """

    training: Mapping[str, Any]
    terms: Mapping[str, Mapping[str, Any]]
    feature_terms: Collection[str]
    schedules: Collection[str]
    training_problem: Callable[[str, Any], str | None]
    term_problem: Callable[[str, Mapping[str, Any]], str | None]
    outside: Callable[[str], OutsideTerm | None]


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

    def _training(self, name: str) -> int:
        return int(self.train.get(name, TRAINING_DEFAULTS[name]))

    @property
    def imgsz(self) -> int:
        """Size of the training images [px]."""
        return self._training("imgsz")

    @property
    def batch(self) -> int:
        """Images in a batch."""
        return self._training("batch")

    @property
    def epochs(self) -> int:
        """Passes over the labeled images."""
        return self._training("epochs")

    @property
    def seed(self) -> int:
        """Seed of split, training order and augmentation."""
        return self._training("seed")

    @property
    def formats(self) -> list[str]:
        """The requested export formats."""
        return [name.strip() for name in self["format"].split(",")]

    @property
    def trackers(self) -> list[str]:
        """Names of the services that keep the run, too."""
        return listed(self["track"])

    @property
    def pseudo(self) -> PseudoSection:
        """Section ``pseudo``."""
        section = self.section("pseudo")
        teachers = section.pop("teachers") or ()
        return PseudoSection(**section, teachers=(teachers,) if isinstance(teachers, str) else tuple(teachers))

    @property
    def seg(self) -> SegSection:
        """Section ``seg``."""
        return SegSection(**{**self.section("seg"), "lr_steps": tuple(self["seg.lr_steps"] or ())})

    @property
    def parity(self) -> ParitySection:
        """Section ``parity``."""
        return ParitySection(**self.section("parity"))

    @property
    def limits(self) -> Limits:
        """Section ``limits``."""
        return Limits(**self.section("limits"))


def defaults() -> dict[str, Any]:
    """The own keys with their defaults, flat."""
    return copy.deepcopy(_read_defaults())


@cache
def _read_defaults() -> dict[str, Any]:
    tree = read_yaml(DEFAULT_PATH)
    tree.pop("terms")
    return flatten(tree)


def find_recipe(name: str) -> Path:
    """Path of a recipe by name or path.

    Raises:
        UserError: No such recipe; the known ones are listed.
    """
    path = Path(name) if name.endswith((".yaml", ".yml")) else RECIPES / f"{name}.yaml"
    if is_too_long(name) or not path.is_file():
        known = ", ".join(sorted(p.stem for p in RECIPES.glob("*.yaml")))
        raise UserError(f"recipe={name}: no such recipe; known: {known}, or a path to a .yaml file")
    return path


def read_recipe(name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The keys of a recipe and the options of its terms, both flat.

    Raises:
        UserError: No such recipe, or a broken one.
    """
    recipe = find_recipe(name)
    tree = read_yaml(recipe)
    terms = tree.pop("terms", None) or {}
    if not isinstance(terms, Mapping) or not all(isinstance(v, Mapping) for v in terms.values()):
        raise UserError(f"{recipe}: terms must be a mapping of term to its options, for example hwjs: {{weight: 1.0}}")
    return {ALIASES.get(key, key): value for key, value in flatten(tree).items()}, flatten(terms)


class _Resolver:
    """Collects values key by key, and every problem."""

    def __init__(self, spaces: NameSpaces):
        self.spaces = spaces
        self.own = defaults()
        self.terms: dict[str, dict[str, Any]] = {}
        self.train: dict[str, Any] = {}
        self.problems: list[str] = []
        self.wrong: set[str] = set()
        self.outside: dict[str, OutsideTerm | None] = {}
        self.failed: set[str] = set()
        options = (f"{term}.{option}" for term, own in spaces.terms.items() for option in {*own, *TERM_OPTIONS})
        self.known = {*self.own, *spaces.training, *options}

    def take(self, name: str, value: Any, where: str) -> None:
        """Store a value with its kind of keys, and note what is wrong with it."""
        key = ALIASES.get(name, name)
        problem = None
        if key in self.own:
            if key == "teacher" and value == "none":  # YAML reads it as a string, the command line as nothing
                value = None
            problem = KEYS[key].check.problem(value)
            if problem:
                self.wrong.add(key)
                problem = f"{key}={value} {problem}"
            self.own[key] = value
        elif refused := argument(key).refused:
            if not is_harmless(key, value, self.spaces.training.get(key)):
                problem = f"{key} is not available here: {refused}"
        elif key in self.spaces.training:
            problem = self._training_problem(key, value)
            if problem:
                self.wrong.add(key)
            self.train[key] = value
        elif key == "terms":
            problem = "terms is a section of a recipe; on the command line set one option, such as hwjs.weight=2"
        else:
            problem = self._take_option(key, value)
        if problem:
            self.problems.append(where + problem)

    def _training_problem(self, key: str, value: Any) -> str | None:
        ours = argument(key)
        if ours.check is not None and (problem := ours.check.problem(value)):
            return f"{key}={value}: {ours.requirement or problem}"
        if is_beyond_all_bounds(value):
            return f"{key}={value}: must be a number that is not that large"
        return self.spaces.training_problem(key, value)

    def _take_option(self, key: str, value: Any) -> str | None:
        """Store an option of a term; why there is none of that name, or None."""
        term, _, option = key.rpartition(".")
        known: Collection[str] = self.known
        if key not in known:
            if term in self.failed:
                return None
            try:
                found = self._outside(term)
            except UserError as e:
                self.failed.add(term)
                return str(e)
            if found is not None and found.options is not None:
                known = {f"{term}.{name}" for name in {*found.options, *TERM_OPTIONS}}
            if found is None or (found.options is not None and key not in known):
                return f"unknown key '{key}'{nearest(key, known)}"
        self.terms.setdefault(term, {})[option] = value
        return None

    def _outside(self, term: str) -> OutsideTerm | None:
        """The term of that name that is not registered here; each is looked for once."""
        if term not in self.outside:
            self.outside[term] = self.spaces.outside(term)
        return self.outside[term]

    @property
    def outside_terms(self) -> dict[str, OutsideTerm]:
        """The terms from outside that the line names."""
        return {name: term for name, term in self.outside.items() if term is not None}

    def active_terms(self) -> dict[str, dict[str, Any]]:
        """The terms with a weight above 0 and all their options."""
        active = {}
        for term, options in self.terms.items():
            merged = {**TERM_OPTIONS, **options}
            wrong = [
                f"{term}.{option}={merged[option]} {problem}"
                for option, check in TERM_CHECKS.items()
                if (problem := check.problem(merged[option]))
            ]
            self.problems += wrong
            if wrong or not merged["weight"] > 0:
                continue
            active[term] = merged
            own = {option: value for option, value in merged.items() if option not in TERM_OPTIONS}
            if problem := self.spaces.term_problem(term, own):
                self.problems.append(f"{term}.{problem}")
        called = [label(term) for term in active]
        for term in self.outside_terms:
            if called.count(label(term)) > 1 or (term in active and label(term) in self.spaces.terms):
                self.problems.append(f"{term}: another term is called {label(term)}, too; rename the class")
        return active


_KEY = re.compile(r"^(?P<indent> *)(?P<key>\w+):(?P<value>[^#]*)(# (?P<meaning>.+))?$")
"""A line of ``cfg/default.yaml`` with a key."""


def resolve(given: Mapping[str, Any], spaces: NameSpaces) -> Config:
    """Merge defaults, recipe and ``given`` into a :class:`Config`.

    Args:
        given: Flat dict as :func:`~dfssd.config.parse.parse_arguments` returns it.
        spaces: The keys of Ultralytics and of the terms.

    Raises:
        UserError: Unknown recipe; or unknown keys, wrong values, and combinations that contradict themselves or do
            nothing, all problems of the line at once.
    """
    resolver, line = _read(given, spaces)
    if "task" not in resolver.wrong:
        resolver.problems += problems(line)
    if resolver.problems:
        raise UserError(*dict.fromkeys(resolver.problems))
    return Config(own=resolver.own, terms=line.terms, train=resolver.train, given=dict(given))


def without_idle(given: Mapping[str, Any], spaces: NameSpaces, *, keep: Collection[str] = ()) -> dict[str, Any]:
    """A line that was put together for one of several runs, without the keys that act in others of them alone.

    Args:
        given: As for :func:`resolve`, also with short forms of keys.
        spaces: The keys of Ultralytics and of the terms.
        keep: Keys that stay in any case, so that :func:`resolve` refuses them.

    Raises:
        UserError: Unknown recipe.
    """
    idle = idle_keys(_read({ALIASES.get(key, key): value for key, value in given.items()}, spaces)[1])
    return {key: value for key, value in given.items() if key in keep or ALIASES.get(key, key) not in idle}


def _read(given: Mapping[str, Any], spaces: NameSpaces) -> tuple[_Resolver, CommandLine]:
    """A line with the defaults and its recipe, its single values checked."""
    resolver = _Resolver(spaces)
    name = str(given.get("recipe", resolver.own["recipe"]))
    recipe, recipe_terms = read_recipe(name)
    for key, value in {**recipe, **recipe_terms}.items():
        resolver.take(key, value, f"in {find_recipe(name).name}: ")
    for key, value in given.items():
        resolver.take(key, value, "")
    active, outside = resolver.active_terms(), resolver.outside_terms
    may_compare_features = (name for name, term in outside.items() if term.is_feature_term or term.options is None)
    return resolver, CommandLine(
        own=ValidKeys(resolver.own, resolver.wrong),
        given=given,
        recipe=recipe,
        recipe_terms=recipe_terms,
        train=ValidKeys({**spaces.training, **resolver.train}, resolver.wrong),
        terms=active,
        defaults={**spaces.training, **defaults()},
        known_terms={**spaces.terms, **{name: term.options or {} for name, term in outside.items()}},
        feature_terms={*spaces.feature_terms, *may_compare_features},
        schedules=spaces.schedules,
    )


class HelpLine(NamedTuple):
    """A key of ours as ``--help`` shows it.

    Attributes:
        key: Its dotted name.
        default: Its default, as in YAML.
        meaning: Its type in parentheses, and what it does.
        group: What the keys around it are about, in a few words.
    """

    key: str
    default: str
    meaning: str
    group: str


def help_lines() -> list[HelpLine]:
    """Our keys in the order of ``cfg/default.yaml``, read from its comments: of a key, and above a group of keys."""
    rows, section, group = [], "", "the run"
    lines = DEFAULT_PATH.read_text(encoding="utf-8").splitlines()
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        if line.startswith("# ") and _KEY.match(following):
            group = line.removeprefix("# ")
        match = _KEY.match(line)
        if not match:
            continue
        key, value = match["key"], match["value"].strip()
        if not match["indent"]:
            section = "" if value else f"{key}."
        if value:
            rows.append(HelpLine(f"{section}{key}" if match["indent"] else key, value, match["meaning"], group))
    return rows
