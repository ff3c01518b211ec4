"""Every method that we put in the place of one of Ultralytics is still called by it.

A hook that upstream renames is not an error in Python: our method is simply no longer called. The table says which
methods are meant to be hooks, so that a renamed one fails by name.
"""

from __future__ import annotations

import inspect

import pytest
from torch import nn
from torch.utils.data import DistributedSampler
from ultralytics.data.dataset import YOLODataset
from ultralytics.engine.trainer import BaseTrainer

import dfssd
from tests.overrides import classes_of, incompatibility, kind, overrides_of, problems, top_level, upstream_of

OVERRIDES = {
    "DistillationPair": {"__getstate__", "_register_feature_hooks", "loss"},
    "FullResolutionHead": {"forward"},
    "FullResolutionModel": {"fuse", "is_fused"},
    "MFFMetalModel": set(),
    "MaskDataset": {"build_transforms", "get_image_and_label", "load_image"},
    "MaskMetrics": {"__init__", "clear_stats", "fitness", "keys", "mean_results", "process"},
    "MaskValidator": {"get_desc", "init_metrics", "postprocess", "print_results", "update_metrics"},
    "ObjectiveTrainer": {"__init__", "preprocess_batch", "setup_model"},
    "PlainImages": {"get_labels"},
    "PretrainingModel": {"__getstate__", "_register_feature_hooks", "loss"},
    "PseudoLabelDataset": {"__getitem__", "get_labels"},
    "RecordingValidator": {"get_dataloader", "init_metrics", "postprocess", "update_metrics"},
    "RegionTrainer": {"build_dataset", "get_dataloader"},
    "SemanticStageTrainer": {
        "__init__",
        "_setup_scheduler",
        "build_dataset",
        "get_dataloader",
        "get_model",
        "get_validator",
        "preprocess_batch",
        "set_model_attributes",
    },
    "SeededLoader": {"__len__"},
    "SharedTrainer": {"__init__", "_setup_ddp", "_setup_train"},
    "SharedValidator": {"__call__", "gather_stats"},
    "StageTrainer": {
        "__init__",
        "_close_dataloader_mosaic",
        "_handle_nan_recovery",
        "_model_train",
        "add_callback",
        "build_optimizer",
        "final_eval",
        "get_dataloader",
        "get_validator",
        "optimizer_step",
        "preprocess_batch",
        "read_results_csv",
        "run_callbacks",
        "save_metrics",
        "save_model",
        "train",
        "validate",
    },
    "StageValidator": {"update_metrics"},
    "StudentTrainer": {
        "__init__",
        "build_optimizer",
        "get_dataloader",
        "preprocess_batch",
        "save_metrics",
        "set_model_attributes",
        "setup_model",
    },
    "UnlabeledDataset": {"build_transforms", "get_labels", "load_mask"},
}
"""Class that derives from one of Ultralytics -> the methods and properties that Ultralytics is meant to call."""

MADE_BY_US = {
    "DistillationPair",
    "FullResolutionHead",
    "FullResolutionModel",
    "MFFMetalModel",
    "PretrainingModel",
    "SeededLoader",
}
"""Classes with an ``__init__`` of their own, since Ultralytics makes no object of them."""

STAND_INS: dict[str, tuple[type, set[str]]] = {
    "MixedDataset": (YOLODataset, {"close_mosaic"}),
    "MixedSampler": (DistributedSampler, {"set_epoch"}),
    "ResumableSteps": (BaseTrainer, {"_load_checkpoint_state", "resume_training"}),
}
"""Class that is put in the place of another one without deriving from it -> that one, and what is called on it."""


def our_classes() -> dict[str, type]:
    return {cls.__name__: cls for cls in classes_of(dfssd)}


def derives_from_ultralytics(cls: type) -> bool:
    return any(top_level(base) == "ultralytics" for base in cls.__mro__)


def test_every_class_that_derives_from_ultralytics_is_listed() -> None:
    found = [cls for cls in classes_of(dfssd) if derives_from_ultralytics(cls)]
    assert sorted(cls.__name__ for cls in found) == sorted(OVERRIDES), "OVERRIDES lists other classes than there are"
    assert sum(map(len, OVERRIDES.values())) >= 45, "the table has lost its rows"


@pytest.mark.parametrize("name", sorted(OVERRIDES))
def test_overrides_are_those_listed_and_suit_the_callers_of_the_base(name: str) -> None:
    found = problems(our_classes()[name], OVERRIDES[name], {"__init__"} if name in MADE_BY_US else ())
    assert not found, "\n".join(found)


@pytest.mark.parametrize("name", sorted(STAND_INS))
def test_stand_ins_have_what_is_called_on_the_original(name: str) -> None:
    cls, (original, methods) = our_classes()[name], STAND_INS[name]
    for method in sorted(methods):
        assert hasattr(original, method), f"{name}.{method} stands in for that of {original.__name__}, which has none"
        assert not (reason := incompatibility(vars(cls)[method], inspect.getattr_static(original, method))), (
            f"{name}.{method} {reason}"
        )


# The helper itself, on small classes.


class Engine:
    """What an upstream class may look like."""

    __module__ = "upstream.engine"

    def step(self, batch, scale=1.0): ...

    def close(self): ...

    @staticmethod
    def collate(samples): ...

    @property
    def names(self): ...


def test_renamed_hook_upstream_fails_by_name() -> None:
    class Ours(Engine):
        def _step(self, batch, scale=1.0): ...

    assert problems(Ours, {"_step"}) == ["Ours._step is listed as an override, but no upstream base has it (Engine)"]


def test_renamed_hook_of_ours_fails_by_name() -> None:
    class Ours(Engine):
        def make_step(self, batch, scale=1.0): ...

    assert problems(Ours, {"step"}) == ["Ours.step is listed as an override, but Ours does not define it"]


def test_accidental_override_fails_by_name() -> None:
    class Ours(Engine):
        def close(self): ...

    [problem] = problems(Ours, set())
    assert problem.startswith("Ours.close replaces a method of a base and is not listed")
    assert problems(Ours, {"close"}) == problems(Ours, set(), {"close"}) == []


def test_base_between_is_looked_through() -> None:
    class Between(Engine):
        def step(self, batch, scale=1.0): ...

    class Ours(Between):
        def step(self, batch): ...

        def own(self): ...

    assert upstream_of(Ours, "step") is Engine and overrides_of(Ours) == {"step"}
    assert problems(Ours, {"step"}) == ["Ours.step does not take 'scale' by place 2 (Engine.step)"]


def test_method_property_and_static_method_do_not_replace_each_other() -> None:
    class Ours(Engine):
        def collate(self, samples): ...

        def names(self): ...

        @property
        def close(self): ...

    assert problems(Ours, {"close", "collate", "names"}) == [
        "Ours.close is a property, upstream a method (Engine.close)",
        "Ours.collate is a method, upstream a staticmethod (Engine.collate)",
        "Ours.names is a method, upstream a property (Engine.names)",
    ]


@pytest.mark.parametrize(
    ("ours", "upstream", "reason"),
    [
        (lambda self, a, b=1: 0, lambda self, a, b=1: 0, None),
        (lambda self, *args, **kwargs: 0, lambda self, a, *, b: 0, None),
        (lambda self, a, *args, b=2, **kwargs: 0, lambda self, a, x=0, b=1: 0, None),
        (lambda self, a, b=1, own=None: 0, lambda self, a, b=1: 0, None),
        (lambda self, a, *, own=None, b: 0, lambda self, a, *, b: 0, None),
        (lambda self, x, /: 0, lambda self, y, /: 0, None),
        (lambda self, a: 0, lambda self, a, b=1: 0, "does not take 'b' by place 2"),
        (lambda self, b, a: 0, lambda self, a, b: 0, "calls parameter 1 'b', upstream 'a'"),
        (lambda self, *args: 0, lambda self, a: 0, "does not take 'a' by name"),
        (lambda self, **kwargs: 0, lambda self, a: 0, "does not take 'a' by place 1"),
        (lambda self, a, /: 0, lambda self, a: 0, "does not take 'a' by name"),
        (lambda self, a, own: 0, lambda self, a: 0, "needs 'own', which upstream does not"),
        (lambda self, a, *, own: 0, lambda self, a: 0, "needs 'own', which upstream does not"),
        (lambda self, a, b: 0, lambda self, a, b=1: 0, "needs 'b', which upstream does not"),
        (lambda self, x, /: 0, lambda self, y=1, /: 0, "needs 'x', which upstream does not"),
        (lambda self: 0, lambda self, *, a=1: 0, "does not take 'a' by name"),
        (lambda self, a: 0, lambda self, a, *rest: 0, "does not take *rest"),
        (lambda self, a: 0, lambda self, a, **extra: 0, "does not take **extra"),
    ],
)
def test_signatures(ours, upstream, reason) -> None:
    assert incompatibility(ours, upstream) == reason


def test_compatibility_agrees_with_python() -> None:
    """For small signatures: whatever call upstream takes, ours takes, if and only if nothing is found."""
    texts = ["a", "a, b=1", "a=1, b=2", "b, a", "a, *args", "*args, **kwargs", "a, **kwargs", "a, *, b=1", "a, /", ""]
    functions = {text: eval(f"lambda self{', ' * bool(text)}{text}: 0") for text in texts}
    calls: list[tuple[tuple[int, ...], tuple[str, ...]]]
    calls = [((), names) for names in ((), ("a",), ("b",), ("a", "b"))]
    calls += [((0,), names) for names in ((), ("a",), ("b",))] + [((0, 0), ()), ((0, 0, 0), ()), ((), ("a", "c"))]

    def takes(function, args, names) -> bool:
        try:
            inspect.signature(function).bind(None, *args, **dict.fromkeys(names))
        except TypeError:
            return False
        return True

    for theirs, upstream in functions.items():
        for mine, ours in functions.items():
            suits = all(takes(ours, *call) for call in calls if takes(upstream, *call))
            assert suits == (incompatibility(ours, upstream) is None), f"({mine}) in the place of ({theirs})"


def test_kinds() -> None:
    assert [kind(vars(Engine)[name]) for name in ("step", "collate", "names")] == ["method", "staticmethod", "property"]
    assert kind(nn.Module.dump_patches) == "attribute"
