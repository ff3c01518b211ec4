"""Checks of a batch against its type: the fields, and the dtype and shape of each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_type_hints


def check_fields(batch: Mapping[str, Any], kind: Any) -> dict[str, int]:
    """Assert that ``batch`` is of ``kind``, a TypedDict of :mod:`dfssd.batches`; returns the sizes by letter."""
    hints = get_type_hints(kind, include_extras=True)
    assert not set(batch) - set(hints), f"fields without a description: {sorted(set(batch) - set(hints))}"
    assert not kind.__required_keys__ - set(batch), f"missing: {sorted(kind.__required_keys__ - set(batch))}"
    sizes: dict[str, int] = {}
    for name, value in batch.items():
        if not hasattr(hints[name], "__metadata__"):
            continue
        dtype, shape, _ = hints[name].__metadata__
        assert isinstance(value, hints[name].__origin__), f"{name} is a {type(value).__name__}"
        assert str(value.dtype).removeprefix("torch.") == dtype, f"{name} is {value.dtype}, not {dtype}"
        letters = shape.split()
        assert value.ndim == len(letters), f"{name} is {tuple(value.shape)}, not ({shape})"
        for letter, size in zip(letters, value.shape, strict=True):
            expected = int(letter) if letter.isdigit() else sizes.setdefault(letter, size)
            assert size == expected, f"{name} is {tuple(value.shape)}, not ({shape}) with {sizes}"
    return sizes
