"""Lists of class names: those that agree are one, those that do not are refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from dfssd.datasets.annotations import Annotation, LabelFile
from dfssd.datasets.class_names import NameList, agree, ids_of, names_in_labels, yaml_names
from dfssd.errors import UserError


def lists(*names: str) -> list[NameList]:
    return [NameList(tuple(own.split()), f"{i}/classes.txt") for i, own in enumerate(names)]


def test_a_list_may_be_the_beginning_of_another() -> None:
    found = agree(lists("a b", "a b c", "a"))
    assert found is not None and found.names == ("a", "b", "c") and found.origin == "1/classes.txt"
    assert agree([]) is None


def test_lists_that_disagree_name_both_files_and_the_argument() -> None:
    with pytest.raises(UserError, match=r"0/classes\.txt and 1/classes\.txt disagree: id 0 is 'a' .* 'b' .*names="):
        agree(lists("a b", "b a"))


@pytest.mark.parametrize("names", ["", "a a", "a A"])
def test_bad_lists(names: str) -> None:
    with pytest.raises(UserError, match=r"0/classes\.txt"):
        agree(lists(names))


def test_ids() -> None:
    assert ids_of(["b", "a", 1], ["a", "b"]) == [1, 0, 1]
    for label, words in ((2, "class id 2 is out of range"), ("c", "'c' is not among"), ("A", "differs from 'a'")):
        with pytest.raises(ValueError, match=words):
            ids_of([label], ["a", "b"])


def label_file(name: str, *labels: str | int, names: tuple[str, ...] | None = None, parents: str = "") -> LabelFile:
    own = Annotation(Path(name), labels=labels)
    return LabelFile(Path(name), "coco", (own,), names, parents=frozenset(parents.split()))


def found_names(*files: LabelFile) -> NameList:
    return names_in_labels(files, [own for file in files for own in file.annotations])


def test_names_in_labels() -> None:
    assert found_names(label_file("a", "z"), label_file("b", "y")).names == ("y", "z")
    assert found_names(label_file("a", "z", names=("z",)), label_file("b", names=("x", "z", "y"))).names == (
        "x",
        "z",
        "y",
    )
    assert found_names(label_file("a", "z", names=("g", "z"), parents="g")).names == ("z",)
    assert found_names(label_file("a", "g", names=("g", "z"), parents="g")).names == ("g", "z")
    numbered = found_names(label_file("a", 2))
    assert numbered.names == ("class_0", "class_1", "class_2") and numbered.fixed


def test_names_and_ids_do_not_mix() -> None:
    with pytest.raises(UserError, match=r"b has class ids and a has names"):
        found_names(label_file("a", "z"), label_file("b", 0))
    with pytest.raises(UserError, match=r"a: class id 10000000 is none"):
        found_names(label_file("a", 10_000_000))


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("[a, b]", ("a", "b")),
        ("{0: a, 1: b}", ("a", "b")),
        ("{'1': b, '0': a}", ("a", "b")),
        ("['no', \"010\"]", ("no", "010")),
        ("[1, 2.5]", ("1", "2.5")),
        ("[' a ', b]", ("a", "b")),
    ],
)
def test_names_of_a_yaml(tmp_path: Path, text: str, names: tuple[str, ...]) -> None:
    file = tmp_path / "data.yaml"
    file.write_text(f"train: x\nnames: {text}\n")
    assert yaml_names(yaml.safe_load(file.read_text()), file) == names


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("names: [no, ok]", "YAML reads no as False; put it in quotes: 'no'"),
        ("names: [010, b]", "YAML reads 010 as 8"),
        ("names: {0: a, 1: 1_000}", "YAML reads 1_000 as 1000"),
        ("names: [~, b]", "YAML reads ~ as None"),
        ("names: {0: a, 2: b}", "must be 0 to 1 without gaps, and they are 0, 2"),
        ("names: {a: x}", "without gaps"),
        ("names: {true: x}", "without gaps"),
        ("names: abc", "not the text 'abc'"),
        ("names: 3", "must be a list"),
        ("names: [[a], b]", "a name is a text, not list"),
        ("names: []", "no class names"),
        ("names: [a, a]", "duplicate class name"),
        ("names: [a]\nnc: 2", "nc: 2 but 1 name"),
        ("nc: 0", "nor a valid nc"),
        ("nc: yes", "nor a valid nc"),
        ("nc: 1000000000000", "nor a valid nc"),
    ],
)
def test_bad_names_of_a_yaml(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "data.yaml"
    file.write_text(f"train: x\n{text}\n")
    with pytest.raises(UserError, match=words) as error:
        yaml_names(yaml.safe_load(file.read_text()), file)
    assert str(file) in str(error.value) and "\n" not in str(error.value)
