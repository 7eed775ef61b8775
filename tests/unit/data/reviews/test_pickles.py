"""Pickles of plain values, and those that would run something."""

import collections
import decimal
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rec.data.reviews.pickles import read_plain
from rec.errors import DataError


class Evil:
    def __init__(self, *call: Any) -> None:
        self.call = call

    def __reduce__(self) -> Any:
        return self.call[0], self.call[1:]


@pytest.mark.parametrize("protocol", range(2, 6))
def test_plain_values_come_back_as_they_were(protocol: int, tmp_path: Path) -> None:
    value = [{"user": "u", "rating": 5, "half": 0.5, "template": ("a", None, "b", -1), "big": 10**30, "yes": True}]
    (tmp_path / "a.pickle").write_bytes(pickle.dumps(value, protocol))
    assert read_plain(str(tmp_path / "a.pickle")) == value


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (Evil(os.system, "touch ran"), "posix.system"),
        (Evil(eval, "open('ran', 'w')"), "builtins.eval"),
        (Evil(getattr, "x", "upper"), "builtins.getattr"),
        ({"rating": np.float64(5)}, r"numpy\._?core\.multiarray\.scalar"),
        (collections.OrderedDict(), "collections.OrderedDict"),
        ([decimal.Decimal("4.5")], "decimal.Decimal"),
    ],
)
def test_what_names_a_class_or_a_function_is_refused_by_its_name(
    value: Any, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.pickle").write_bytes(pickle.dumps(value))
    with pytest.raises(DataError, match=rf"a.pickle: refused: the pickle asks for {name}, and only lists, dicts"):
        read_plain("a.pickle")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("data", [b"", b"not a pickle", pickle.dumps([1, 2])[:-3], b"\x80\x04\x8c\xff."])
def test_what_is_no_pickle_is_told(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.pickle").write_bytes(data)
    with pytest.raises(DataError, match=r"a.pickle: no pickle that can be read"):
        read_plain(str(tmp_path / "a.pickle"))
