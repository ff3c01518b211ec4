"""The strict configuration: grammar, precedence, and what a typo is answered with."""

import pytest
import yaml

from dfssd import config
from dfssd.errors import UserError

ULTRALYTICS = {"epochs", "imgsz", "device", "lr0", "name", "project", "data", "resume"}
TERMS = {"hwjs": {"tau": 1.0, "images": 1.0}, "response_cls": {}, "response_dfl": {}, "logit_mse": {}}


def resolve(*words: str) -> config.Config:
    return config.resolve(config.parse_arguments(list(words)), ultralytics_keys=ULTRALYTICS, term_options=TERMS)


def test_every_key_has_default_check_and_meaning() -> None:
    keys = set(config.defaults())
    assert keys == set(config.CHECKS)
    assert keys | {"terms"} == {row[0] for row in config.help_lines()}
    for key, value in config.defaults().items():
        assert config.CHECKS[key](value) is None, key


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


def test_terms_switch_on_and_off_by_weight() -> None:
    assert "hwjs" not in resolve("hwjs.weight=0").terms
    assert resolve("logit_mse.weight=0.25").terms["logit_mse"]["weight"] == 0.25


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["labelled=0.1"], "did you mean 'labeled'"),
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
    ],
)
def test_bad_input_is_one_clear_line(words: list[str], message: str) -> None:
    with pytest.raises(UserError) as caught:
        resolve(*words)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_share_without_balance_is_told() -> None:
    with pytest.raises(UserError, match=r"hwjs\.share acts with balance=auto only.*or set hwjs\.weight"):
        resolve("hwjs.share=0.3")
    assert resolve("hwjs.share=0.3", "balance=auto").terms["hwjs"]["share"] == 0.3
    with pytest.raises(UserError, match=r"hwjs\.share=0 must be a number > 0"):
        resolve("hwjs.share=0", "balance=auto")
    with pytest.raises(UserError, match=r"balance=on must be one of: fixed, auto|balance=True must be"):
        resolve("balance=on")


def test_broken_recipe_names_file_and_line(tmp_path) -> None:
    recipe = tmp_path / "broken.yaml"
    recipe.write_text("terms:\n  hwjs: {weight: 1\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"broken\.yaml is not valid YAML.*line"):
        resolve(f"recipe={recipe}")


def test_recipes_hold_only_known_terms() -> None:
    from dfssd.cli import configure

    recipes = sorted(config.RECIPES.rglob("*.yaml"))
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
                "distill",
                "finetune",
                "freeze",
                "joint",
            }
        ), recipe
        assert recipe.read_text(encoding="utf-8").startswith("#"), f"{recipe} must open with its command"
        yaml.safe_load(recipe.read_text(encoding="utf-8"))
