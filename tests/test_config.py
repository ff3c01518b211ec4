"""The strict configuration: grammar, precedence, and what a typo is answered with."""

import re
from dataclasses import fields

import pytest
import yaml
from ultralytics.utils import DEFAULT_CFG_DICT

from dfssd import config
from dfssd.config import KEYS, NameSpaces, OutsideTerm
from dfssd.config.resolution import RECIPES
from dfssd.config.sections import ParitySection, PseudoSection, SegSection
from dfssd.errors import UserError
from dfssd.trust.limits import Limits

OUTSIDE = {
    "my.module:MyTerm": OutsideTerm({"tau": 1.0}, is_feature_term=True),
    "other:MyTerm": OutsideTerm({}, is_feature_term=False),
    "other:cwd": OutsideTerm({}, is_feature_term=False),
    "unread": OutsideTerm(None, is_feature_term=False),
}

SPACES = NameSpaces(
    training=DEFAULT_CFG_DICT,
    terms={
        "hwjs": {"tau": 1.0, "images": 1.0},
        "cwd": {"tau": 4.0},
        "response_cls": {},
        "response_dfl": {},
        "logit_mse": {},
    },
    feature_terms={"hwjs", "cwd"},
    schedules=("constant", "sigmoid_ramp", "cosine"),
    training_problem=lambda key, value: f"{key}={value} is too large" if key == "lr0" and value > 9 else None,
    outside=lambda name: OUTSIDE.get(name),
    term_problem=lambda name, options: "tau=-1 must be positive" if options.get("tau") == -1 else None,
)


def resolve(*words: str) -> config.Config:
    return config.resolve(config.parse_arguments(list(words)), SPACES)


def problems(*words: str) -> list[str]:
    with pytest.raises(UserError) as caught:
        resolve(*words)
    assert all("\n" not in problem for problem in caught.value.problems)
    return list(caught.value.problems)


def test_every_key_has_default_row_type_and_meaning() -> None:
    keys = set(config.defaults())
    assert keys == set(KEYS)
    documented = {row[0]: row[2] for row in config.help_lines()}
    assert keys | {"terms"} == set(documented)
    for key, value in config.defaults().items():
        assert KEYS[key].check.problem(value) is None, key
        assert documented[key].startswith(f"({KEYS[key].check.type}) "), f"{key}: type in default.yaml and in its row"


@pytest.mark.parametrize("name", sorted(KEYS))
def test_every_wrong_value_of_every_key_is_rejected_by_name(name: str) -> None:
    check = KEYS[name].check
    assert check.wrong(), "a range that cannot be missed checks nothing"
    for value in check.wrong():
        problem = check.problem(value)
        assert problem and problem.startswith("must be "), (name, value)
        with pytest.raises(UserError) as caught:
            config.resolve({name: value}, SPACES)
        begin = UserError(f"{name}={value} must be").problems[0]
        assert begin in str(caught.value) or "no such recipe" in str(caught.value), (name, value)


@pytest.mark.parametrize(
    ("section", "kind"),
    [("pseudo", PseudoSection), ("seg", SegSection), ("parity", ParitySection), ("limits", Limits)],
    ids=lambda v: str(v),
)
def test_sections_have_a_field_for_each_key_and_no_default(section: str, kind: type) -> None:
    config_ = resolve()
    assert {f.name for f in fields(kind)} == set(config_.section(section))
    assert isinstance(getattr(config_, section), kind)
    with pytest.raises(TypeError, match="missing"):
        kind()


def test_all_problems_of_a_line_are_reported_at_once() -> None:
    found = problems("labeled_share=0.1", "guard=maybe", "batch=1", "lr0=10", "cwd.tau=-1", "pseudo.tau0=0.05")
    expected = (
        "unknown key 'labeled_share'; did you mean 'labeled'?",
        "guard=maybe must be one of: true, false",
        "batch=1: give a whole number of at least 2",
        "lr0=10 is too large",
        "cwd.tau=-1 must be positive",
        "pseudo.tau_low=0.1 <= pseudo.tau0=0.05",
    )
    assert len(found) == len(expected)
    for text, start in zip(found, expected, strict=True):
        assert text.startswith(start)


def test_a_rule_does_not_judge_a_value_that_is_wrong_anyway() -> None:
    assert problems("pseudo.tau0=high") == ["pseudo.tau0=high must be a number >= 0 and <= 1"]
    assert problems("pseudo.tau0=high", "teacher_kind=ema", "pseudo=offline")[1:] == [
        "teacher_kind=ema needs pseudo.mode=online, not offline: the moving average of the student exists only while "
        "it is trained"
    ]


def test_pretraining_that_would_not_happen_is_refused() -> None:
    assert problems("pretrain_batches=100") == [
        "pretrain_batches has no effect with pretrain=none: add pretrain=dense, or leave it out"
    ]
    assert resolve("pretrain=dense", "pretrain_batches=100")["pretrain_batches"] == 100
    grown = ("student_training=grown", "baseline=false", "teacher=old.pt", "pretrain=regions", "balance=fixed")
    assert problems(*grown) == [
        "student_training=grown needs pretrain=none, not regions: the network has been trained before"
    ]


def test_task_that_the_recipe_is_not_for_is_the_one_thing_to_say() -> None:
    assert problems("task=semantic", "pseudo.tau0=0.25") == [
        "recipe=dfssd is for task=detect, not semantic; choose another recipe"
    ]


def test_several_wrong_words_are_reported_together() -> None:
    with pytest.raises(UserError) as caught:
        config.parse_arguments(["epochs", "a=1", "a=2", "--data"])
    assert [re.sub(":.*", "", text) for text in caught.value.problems] == [
        "'epochs' is not an argument",
        "a is given twice",
        "--data has no value",
    ]


def test_differences_between_configurations() -> None:
    then = {"a": 1, "gone": 2, "same": 3}
    now = {"a": 2, "same": 3, "new": None}
    assert config.differences(then, now) == [("a", 1, 2), ("gone", 2, None)]
    assert config.differences(then, now, missing=config.UNSET)[-1] == ("new", config.UNSET, None)
    assert config.differences(then, now, ignoring={"a", "gone"}) == []
    assert config.differences(then, now, keys=["same", "gone"]) == [("gone", 2, None)]
    assert config.differences({}, {"hwjs.weight": 0}) == [], "a term that is not there has no weight"
    flat = config.flat_settings({"guard": True}, {"hwjs": {"weight": 2.0}}, {"epochs": 3})
    assert flat == {"guard": True, "hwjs.weight": 2.0, "epochs": 3}


def test_three_spellings_are_one_grammar() -> None:
    old = resolve("--teacher_model", "s.pt", "--student_model", "n.pt", "--dataset", "CR7-DET.zip")
    new = resolve("teacher=s.pt", "student=n.pt", "data=CR7-DET.zip")
    mixed = resolve("--teacher=s.pt", "--student", "n.pt", "data=CR7-DET.zip")
    assert old.own == new.own == mixed.own


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0.1", 0.1),
        ("1e-3", 0.001),
        ("3", 3),
        ("True", True),
        ("off", False),
        ("none", None),
        ("[1,2]", [1, 2]),
        ("[a,b]", ["a", "b"]),
        ("0.1.2", "0.1.2"),
        ("runs/x", "runs/x"),
    ],
)
def test_values_are_read_as_ultralytics_reads_them(text: str, value: object) -> None:
    parsed = config.parse_value(text)
    assert parsed == value and type(parsed) is type(value)


def test_device_list_and_numeric_names_stay_text() -> None:
    given = config.parse_arguments(["device=0,1", "name=007"])
    assert given == {"device": "0,1", "name": "007"}


def test_command_line_wins_over_recipe_over_default(tmp_path) -> None:
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("unsup_weight: 0.5\nepochs: 7\nterms:\n  hwjs: {weight: 3.0, tau: 2.0}\n", encoding="utf-8")
    plain = resolve(f"recipe={recipe}")
    assert plain["unsup_weight"] == 0.5 and plain.train["epochs"] == 7
    assert plain.terms == {"hwjs": {"weight": 3.0, "schedule": "constant", "share": 0.2, "tau": 2.0}}
    changed = resolve(f"recipe={recipe}", "hwjs.tau=4", "unsup_weight=2", "epochs=9")
    assert changed.terms["hwjs"]["tau"] == 4 and changed["unsup_weight"] == 2 and changed.train["epochs"] == 9


def test_terms_from_outside_are_like_those_from_here(tmp_path) -> None:
    found = resolve("my.module:MyTerm.weight=2", "my.module:MyTerm.tau=3").terms["my.module:MyTerm"]
    assert found == {"weight": 2, "schedule": "constant", "share": 0.2, "tau": 3}
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("terms:\n  my.module:MyTerm: {weight: 0.5}\n  unread: {weight: 1, any: 3}\n", encoding="utf-8")
    terms = resolve(f"recipe={recipe}").terms
    assert terms["my.module:MyTerm"]["weight"] == 0.5 and terms["unread"]["any"] == 3
    assert problems("my.module:MyTerm.taw=3")[0] == (
        "unknown key 'my.module:MyTerm.taw'; did you mean 'my.module:MyTerm.tau'?"
    )
    assert problems("my.module:MyTerm.tau=3") == [
        "my.module:MyTerm.tau has no effect: my.module:MyTerm is switched off; add my.module:MyTerm.weight=1, or leave "
        "it out"
    ]
    assert "switch off with my.module:MyTerm.weight=0" in problems(
        "my.module:MyTerm.weight=1", "student_training=grown", "teacher=a.pt", "balance=fixed", "baseline=false",
        "freeze_features=true", "hwjs.weight=0", "cwd.weight=0",
    )[0]  # fmt: skip


def test_terms_of_one_name_cannot_be_told_apart() -> None:
    text = "another term is called MyTerm, too; rename the class"
    assert problems("my.module:MyTerm.weight=1", "other:MyTerm.weight=1") == [
        f"my.module:MyTerm: {text}",
        f"other:MyTerm: {text}",
    ]
    assert problems("other:cwd.weight=1") == ["other:cwd: another term is called cwd, too; rename the class"]
    assert resolve("my.module:MyTerm.weight=1", "other:MyTerm.weight=0").terms["my.module:MyTerm"]


def test_terms_switch_on_and_off_by_weight() -> None:
    assert "cwd" not in resolve("cwd.weight=0").terms
    assert resolve("logit_mse.weight=0.25").terms["logit_mse"]["weight"] == 0.25


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["labeled_share=0.1"], "did you mean 'labeled'"),
        (["epoch=3"], "did you mean 'epochs'"),
        (["hwjs.wieght=3"], "did you mean 'hwjs.weight'"),
        (["labeled=1.5"], "labeled=1.5 must be a share"),
        (["labeled=0"], "labeled=0 must be a share"),
        (["split_ratio=[0.5,0.5,0.5]"], "add up to 1"),
        (["model=yolov8n.pt"], "use student="),
        (["fraction=0.1"], "use labeled="),
        (["pseudo.tau0=0.05"], "pseudo.tau_low=0.1 <= pseudo.tau0=0.05"),
        (["pseudo.precision=0.9", "pseudo=both", "pseudo.tta=true"], "pseudo.precision with pseudo=both needs"),
        (["pseudo.precision=0.9", "pseudo.tau_low=0.95", "pseudo.tau0=1", "pseudo.tau_max=1"], "must be at most 0.9"),
        (["recipe=dfsd"], "no such recipe; known: baseline, dfssd"),
        (["epochs"], "'epochs' is not an argument"),
        (["--epochs"], "--epochs has no value"),
        (["epochs=1", "epochs=2"], "given twice"),
        (["hwjs.weight=-1"], "must be a number >= 0"),
        (["hwjs.weight=1e400"], "hwjs.weight=inf must be a number >= 0, and not that large"),
        (["seed=99999999999999999999"], "must be a whole number >= 0 and <= 2147483647"),
        (["seed=-1"], "must be a whole number >= 0"),
        (["batch=99999999999999999999"], "batch=99999999999999999999: give a whole number of at least 2"),
        (["epochs=99999999999999999999"], "must be a whole number >= 1, and not that large"),
        (["limit=99999999999999999999"], "must be a whole number >= 1, and not that large"),
        (["max_det=99999999999999999999"], "max_det=99999999999999999999: must be a number that is not that large"),
        (["cache=foo"], "cache=foo: must be one of: true, false, ram, disk"),
        (["freeze=abc"], "freeze=abc: must be a number of layers, or a list"),
        (["freeze=[abc]"], "freeze=['abc']: must be a number of layers, or a list"),
        (["freeze=-1"], "freeze=-1: must be a number of layers, or a list"),
        (["freeze=true"], "freeze=True: must be a number of layers, or a list"),
        (["close_mosaic=-1"], "close_mosaic=-1: must be a whole number >= 0"),
        (["warmup_epochs=-3"], "warmup_epochs=-3: must be a number >= 0"),
        (["warmup_epochs=1e999"], "warmup_epochs=inf: must be a number >= 0"),
        (["workers=-1"], "workers=-1: must be a whole number >= 0"),
        (["box=-1"], "box=-1: must be a number >= 0"),
        (["degrees=1e400"], "degrees=inf: must be a number >= -180 and <= 180"),
        (["momentum=1"], "momentum=1: must be >= 0 and < 1"),
        (["name=a\nb"], "must be a name in one line, of a folder inside project="),
        (["name=../../../x"], "name=../../../x must be a name in one line, of a folder inside project="),
        (["name=/tmp/x"], "must be a name in one line, of a folder inside project="),
        (["name=."], "must be a name in one line, of a folder inside project="),
        (["project=a\x00b"], "must be one line without control characters"),
        (["data=a\nb"], "must be one line without control characters"),
        (["names=[a,b\x00]"], "must be a string or a list of strings, each in one line"),
        (["tracker=wandb"], "tracker is not available here: it belongs to Ultralytics' tracking; leave it out"),
        (["opset=13"], "opset is not available here: it belongs to exports: after the run, dfssd export <run>"),
        *(
            ([f"{key}=1"], f"{key} is not available here: it belongs to {what}")
            for what, keys in {
                "exports": ("dynamic", "nms", "workspace", "half", "int8"),
                "predictions": ("source", "show", "save_txt", "embed", "dnn", "visualize"),
            }.items()
            for key in keys
        ),
    ],
)
def test_bad_input_is_one_clear_line(words: list[str], message: str) -> None:
    assert any(message in problem for problem in problems(*words))


@pytest.mark.parametrize("words", [["workers=0"], ["cache=disk"], ["cache=true"], ["freeze=10"], ["freeze=[0,1]"]])
@pytest.mark.parametrize("name", ["name=a/b", "name=a b", "name=..a", "name=007", "name=none"])
def test_usual_values_are_accepted(words: list[str], name: str) -> None:
    resolve(*words, name, "freeze=none" if "freeze" not in words[0] else "seed=0", "degrees=-45", "warmup_epochs=0.5")


def test_shares_act_with_balance_and_weights_without() -> None:
    with pytest.raises(UserError, match=r"cwd\.share acts with balance=auto only.*or set cwd\.weight"):
        resolve("cwd.share=0.3", "balance=fixed")
    assert resolve("cwd.share=0.3").terms["cwd"]["share"] == 0.3
    with pytest.raises(UserError, match=r"cwd\.share=0 must be a number > 0"):
        resolve("cwd.share=0")
    with pytest.raises(
        UserError, match=r"cwd\.weight=2 sets no strength with balance=auto: set cwd\.share, or add balance"
    ):
        resolve("cwd.weight=2")
    assert resolve("cwd.weight=2", "balance=fixed").terms["cwd"]["weight"] == 2
    assert resolve("cwd.weight=1").terms["cwd"] == resolve().terms["cwd"], "as in the recipe"
    with pytest.raises(UserError, match=r"balance=on must be one of: fixed, auto|balance=True must be"):
        resolve("balance=on")


SKIP, GROWN = (
    ("student_training=skip",),
    ("student_training=grown", "teacher=old.pt", "baseline=false", "balance=fixed"),
)
MASKS, EMA = ("recipe=mffmetal",), ("teacher_kind=ema", "pseudo=online")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((*SKIP, "strong_view=0.5"), "strong_view has no effect: no network is distilled with student_training=skip"),
        ((*SKIP, "student_start=auto"), "student_start has no effect with student_training=skip"),
        ((*SKIP, "format=openvino"), "format has no effect: student_training=skip trains no student"),
        (
            ("student_training=labels", "student_start=teacher", "pseudo=online"),
            "pseudo.mode has no effect: no network",
        ),
        (("student_training=ultralytics", "guard=true"), "guard has no effect with student_training=ultralytics"),
        ((*SKIP, "teacher=none", "teacher_epochs=3"), "teacher_epochs has no effect with teacher=none"),
        ((*GROWN, "teacher_train=true"), "teacher_train has no effect: the teacher is the model trained so far"),
        (("teacher_kind=ema", "teacher_epochs=3"), "teacher_epochs has no effect with teacher_kind=ema"),
        (("teacher_train=false", "teacher_epochs=3"), "teacher_epochs has no effect with teacher_train=false"),
        (("teacher_epochs=3", "teacher_min_batches=9"), "teacher_min_batches has no effect with teacher_epochs=3"),
        (("guard=false", "guard_patience=3"), "guard_patience has no effect with guard=false"),
        (("baseline=false", "guard_patience=3"), "guard_patience has no effect with baseline=false"),
        (("unsup_weight=0", "unsup_schedule=cosine"), "unsup_schedule has no effect with unsup_weight=0"),
        (("new_only=true",), "new_only acts only with student_training=grown"),
        (("lr0=0.1",), "lr0 has no effect with optimizer=auto: auto sets its own; name one"),
        (("optimizer=Adam", "warmup_momentum=0.5"), "warmup_momentum has no effect with optimizer=Adam"),
        (("optimizer=SGD", "warmup_epochs=0", "warmup_bias_lr=0"), "warmup_bias_lr has no effect with warmup_epochs=0"),
        (
            (*GROWN, "freeze_features=true", "cwd.weight=0", "freeze=3"),
            "freeze has no effect with freeze_features=true",
        ),
        (("recipe=distill", "balance=auto"), "balance=auto has no effect: no term is switched on"),
        (("cwd.weight=0", "layers=[1]"), "layers has no effect: no term compares feature maps"),
        ((*MASKS, "multi_scale=0.5"), "multi_scale has no effect on masks"),
        ((*MASKS, "agnostic_nms=true"), "agnostic_nms has no effect on masks"),
        ((*MASKS, "pseudo=online"), "pseudo.mode acts only in detection, and this run segments"),
        (("seg.kd=3",), "seg.kd acts only in segmentation, as in recipe=mffmetal"),
        ((*MASKS, *SKIP, "guard=true"), "guard has no effect with student_training=skip"),
        (("guard=true", "baseline=false"), "guard has no effect with baseline=false"),
        ((*EMA, "teacher=yolov8s.pt"), "teacher has no effect with teacher_kind=ema: the student's own average"),
        (("split=lists", "split_ratio=[0.6,0.2,0.2]"), "split_ratio has no effect with split=lists: its lists"),
        (("mosaic=0", "close_mosaic=3"), "close_mosaic has no effect with mosaic=0: no images are combined"),
        ((*MASKS, "close_mosaic=3"), "close_mosaic has no effect on masks"),
        ((*MASKS, "cos_lr=true"), "cos_lr has no effect: the learning rate falls by seg.lr_steps"),
        (("optimizer=auto", "warmup_epochs=0", "warmup_momentum=0.5"), "warmup_momentum has no effect with warmup"),
        (("recipe=baseline", "pseudo.tau0=0"), "pseudo.tau0 has no effect: no network is distilled"),
    ],
)
def test_key_that_cannot_act_is_refused(words: tuple[str, ...], message: str) -> None:
    assert any(problem.startswith(message) for problem in problems(*words))


@pytest.mark.parametrize(
    "words",
    [
        (*SKIP, "teacher_rounds=1", "strong_view=0.5", "pseudo=online"),
        (*SKIP, "guard=false"),
        (*MASKS, *SKIP, "selftest_steps=2"),
        ("optimizer=AdamW", "lr0=0.1"),
        ("resume=runs/x", "lr0=0.1", "strong_view=0.5", "recipe=baseline"),
        ("my.module:MyTerm.weight=1", "layers=[1]", "cwd.weight=0"),
        ("optimizer=auto", "momentum=0.8", "warmup_momentum=0.5"),
        ("recipe=baseline", "pseudo.precision=none", "compare=none", "steps=none", "seg.cutmix=0", "seg.kd=0"),
        ("recipe=baseline", "layers=auto", "pseudo=offline", "balance=fixed", "unlabeled_mosaic=0", "unsup_weight=0"),
        (*MASKS, "mosaic=0", "scale=0", "dfl=0", "close_mosaic=0", "lrf=0.01", "cos_lr=false", "max_det=300"),
        ("teacher_train=false", "teacher_epochs=auto", "lr0=0.01", "warmup_bias_lr=0.1"),
        ("int8=false", "half=false", "single_cls=false", "save=true", "val=true", "rect=false", "classes=none"),
        ("save_period=0", "erasing=0", "auto_augment=none", "pretrained=true", "nms=false", "vid_stride=1"),
        (*EMA, "teacher=none"),
        ("guard=false", "baseline=false"),
        ("split=lists", "split_ratio=[0.8,0.1,0.1]"),
        ("split_ratio=[0.6,0.2,0.2]",),
        ("mosaic=0", "close_mosaic=10"),
        ("mosaic=0", "mixup=0.5", "close_mosaic=3"),
        ("mosaic=0", "unlabeled_mosaic=0.5", "close_mosaic=3"),
    ],
)
def test_key_that_acts_or_is_off_is_taken(words: tuple[str, ...]) -> None:
    """What has its default, or is off, asks for nothing; a line that resumes a run is not its whole configuration.

    A self-trained teacher learns as a student does.
    """
    resolve(*words)


def test_key_without_effect_is_named_once() -> None:
    assert [text.partition(" ")[0] for text in problems("recipe=baseline", "layers=[1]", "balance=auto")] == [
        "layers",
        "balance",
    ]


@pytest.mark.parametrize(
    "word",
    [
        "model=none", "distill_model=none", "mode=train", "cfg=none", "save_dir=none", "save=false", "val=false",
        "classes=0", "source=0", "half=true", "pretrained=false", "fraction=0",
    ],
)  # fmt: skip
def test_refused_argument_that_asks_for_something_stays_refused(word: str) -> None:
    assert problems(word)[0].startswith(f"{word.partition('=')[0]} is not available here: ")


def test_accepted_default_of_a_refused_argument_is_not_passed_on() -> None:
    assert resolve("rect=false", "int8=false", "epochs=3").train == {"epochs": 3}


def test_lines_for_several_runs_lose_what_acts_in_others_alone() -> None:
    given = {"recipe": "baseline", "pseudo": "online", "strong_view": 0.5, "epochs": 3, "teacher_epochs": 4}
    assert config.without_idle(given, SPACES) == {"recipe": "baseline", "epochs": 3}
    assert config.without_idle(given, SPACES, keep=["strong_view"]) == {
        "recipe": "baseline",
        "strong_view": 0.5,
        "epochs": 3,
    }


def test_ablations_differ_from_the_default_in_their_part_alone() -> None:
    from dfssd.runs.configure import configure

    def settings(recipe: str) -> dict[str, object]:
        line = configure({"recipe": recipe})
        return config.flat_settings(line.own, line.terms, line.train)

    whole = settings("dfssd")

    def changed(recipe: str) -> set[str]:
        keys = {key.partition(".")[0] for key, *_ in config.differences(whole, settings(recipe), ignoring={"recipe"})}
        return keys - {"cwd", "response_cls", "response_dfl"} if not configure({"recipe": recipe}).terms else keys

    assert changed("distill-only") == {"unsup_weight"}
    assert changed("pseudo-only") == {"balance"}
    assert changed("start-only") == {"balance", "pseudo", "student_start", "student_training"}


def test_broken_recipe_names_file_and_line(tmp_path) -> None:
    recipe = tmp_path / "broken.yaml"
    recipe.write_text("terms:\n  hwjs: {weight: 1\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"broken\.yaml:\d+: is not valid YAML"):
        resolve(f"recipe={recipe}")


def test_recipes_hold_only_known_terms() -> None:
    from dfssd.runs.configure import configure

    recipes = sorted(RECIPES.rglob("*.yaml"))
    assert recipes
    for recipe in recipes:
        config_ = configure({"recipe": str(recipe), "teacher": "old.pt"})
        assert (
            config_.terms
            or config_["task"] == "semantic"
            or recipe.stem
            in {
                "baseline",
                "ultralytics",
                "pseudo-only",
                "start-only",
                "distill",
                "finetune",
                "freeze",
                "joint",
            }
        ), recipe
        assert recipe.read_text(encoding="utf-8").startswith("#"), f"{recipe} must open with its command"
        yaml.safe_load(recipe.read_text(encoding="utf-8"))
