"""Texts and pictures of a shard: what is wrong with a row stays with that row."""

import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from tests.support.own import own_tables, prepared
from tests.unit.data.test_images import encoded, saved


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("http://example.org/a.jpg", "Unrecognized filesystem type"),
        ("a\0b.jpg", "NUL"),
        ("/dev/zero", "a pipe, a device"),
        ("pipe", "a pipe, a device"),
        ("folder", "a folder"),
        ("nothing://a", "Unrecognized filesystem type"),
        ("file:///%zz", "Cannot parse URI"),
        (" ", "white space alone"),
    ],
)
def test_a_bad_address_among_good_ones_is_one_bad_row(address: str, reason: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "good.jpg").write_bytes(encoded())
    photo = ["good.jpg"] * 4 + [address] + ["good.jpg"] * 5
    data = prepared(tmp_path / "data", own_tables(tmp_path, photo=photo, maximum_bad_share=0.1))
    found = data.manifest["encoded"]["items"]
    assert (found["pictures"], found["bad"]) == (10, 1)
    (row,) = found["bad_rows"]
    assert row[:2] == ["i4", "photo"]
    assert reason in row[2]
    assert data.array("item_present")[1:, 1].tolist() == [n != 4 for n in range(10)]
    assert pd.read_csv(tmp_path / "data" / "bad_items.csv")["item"].tolist() == ["i4"]


@pytest.mark.parametrize("cell", [["a.jpg"], {"path": "a.jpg"}, 7])
def test_cells_that_are_no_address_are_bad_rows(cell: Any, tmp_path: Path) -> None:
    sections = own_tables(tmp_path, photo=[cell] * 5 + [None] * 5, maximum_bad_share=1.0)
    data = prepared(tmp_path / "data", sections)
    found = data.manifest["encoded"]["items"]
    assert (found["pictures"], found["bad"]) == (5, 5)
    assert "expected bytes, a path or a URI" in found["bad_rows"][0][2]


def test_missing_addresses_and_texts_are_absent_and_not_bad(tmp_path: Path) -> None:
    sections = own_tables(tmp_path, photo=["", None] * 5, words=[None, " "] * 5)
    found = prepared(tmp_path / "data", sections).manifest["encoded"]["items"]
    assert (found["pictures"], found["bad"], found["notes"]) == (0, 0, {"text empty": 10})


@pytest.mark.parametrize(
    ("picture", "expected"),
    [
        (saved(Image.fromarray(np.full((9, 9), 12345, np.uint16)), "PNG"), 48),  # 12345 / 65535 * 255 = 48.04
        (saved(Image.fromarray(np.full((1, 3000), 12345, np.uint16)), "TIFF"), 48),
        (saved(Image.new("LA", (3000, 1), (0, 51)), "PNG"), 204),
        (saved(Image.new("1", (1, 1), 1), "PNG"), 255),
    ],
)
def test_pixels_and_thumbnails_have_the_true_values_of_odd_pictures(picture: bytes, expected: int, tmp_path) -> None:
    sections = own_tables(tmp_path, photo=[picture] * 10, image={"size": 8, "thumbnail": 24})
    data = prepared(tmp_path / "data", sections)
    assert (data.array("item_pixels")[1:] == expected).all()
    (thumbnail,) = {bytes(value) for value in data.items["image"].to_pylist()}
    assert np.asarray(Image.open(io.BytesIO(thumbnail))).max() == pytest.approx(expected, abs=2)
