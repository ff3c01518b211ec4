import pytest
import yaml

from dfssd.datasets.cards import CARDS, find_card, is_card, nearest_card, read_card


@pytest.mark.parametrize("path", sorted(CARDS.glob("*.yaml")), ids=lambda path: path.stem)
def test_a_card_is_complete(path):
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert {"homepage", "license", "layout", "images", "boxes", "file", "download", "names"} <= set(content)
    assert is_card(content)
    assert read_card(path).names == tuple(content["names"])


def test_cards_are_found_by_name_or_file():
    for name in ("CR7-DET", "cr7-det", "CR7-DET.zip", "some/where/CR7-DET.zip"):
        assert find_card(name).name == "CR7-DET"
    assert find_card("coco") is None
    assert nearest_card("NEUDET") == "NEU-DET" and nearest_card("imagenet") is None


def test_an_ultralytics_yaml_is_no_card():
    assert not is_card({"train": "images", "names": ["a"]})
    assert not is_card(None)
