"""Pictures of every odd kind: decoded, or refused with the reason."""

import contextlib
import io
import os
import re
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from rec.data.images import SPOILED, BadImage, decode, limited, raw_features, read_image, square, swapped

LIMIT = 25_000_000


def encoded(mode: str = "RGB", form: str = "JPEG", size: tuple[int, int] = (40, 30), **options: object) -> bytes:
    rng = np.random.default_rng(0)
    channels = {"L": 1, "RGB": 3, "RGBA": 4, "CMYK": 4, "P": 3, "I;16": 1}[mode]
    pixels = rng.integers(0, 256, (size[1], size[0], channels)).astype(np.uint8).squeeze()
    image = Image.fromarray(pixels, "RGB" if mode == "P" else mode if mode != "I;16" else "L")
    image = image.convert("P") if mode == "P" else image
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("mode", "form"), [("RGB", "JPEG"), ("L", "JPEG"), ("CMYK", "JPEG"), ("RGBA", "PNG"), ("P", "PNG"), ("P", "GIF"),
                       ("RGB", "WEBP"), ("RGBA", "WEBP"), ("RGB", "BMP")]
)  # fmt: skip
def test_every_mode_and_format_becomes_rgb(mode: str, form: str) -> None:
    found = decode(encoded(mode, form), 16, LIMIT)
    assert found.image.mode == "RGB"
    assert square(found.image, 16).shape == (16, 16, 3)
    assert found.note == ("CMYK: converted" if mode == "CMYK" else "")


def test_the_first_frame_of_an_animation_counts() -> None:
    frames = [Image.new("RGB", (20, 20), colour) for colour in ("red", "blue")]
    stream = io.BytesIO()
    frames[0].save(stream, "GIF", save_all=True, append_images=frames[1:])
    found = decode(stream.getvalue(), 16, LIMIT)
    assert found.note == "animated: first frame"
    assert square(found.image, 16)[8, 8].tolist() == [255, 0, 0] or square(found.image, 16)[8, 8, 0] > 200


def test_transparency_becomes_white() -> None:
    stream = io.BytesIO()
    Image.new("RGBA", (8, 8), (0, 0, 0, 0)).save(stream, "PNG")
    assert square(decode(stream.getvalue(), 8, LIMIT).image, 8).min() == 255


@pytest.mark.parametrize("share", [0.0, 0.05, 0.3, 0.6, 0.95])
def test_a_file_that_is_cut_short_is_refused(share: float) -> None:
    data = encoded(size=(200, 200))
    with pytest.raises(BadImage):
        decode(data[: int(share * len(data))], 16, LIMIT)


def test_a_png_of_too_many_pixels_is_refused_and_a_jpeg_is_scaled_down() -> None:
    stream = io.BytesIO()
    Image.new("1", (10_000, 10_000)).save(stream, "PNG")
    with pytest.raises(BadImage, match="10000 x 10000 pixels, at most 25000000"):
        decode(stream.getvalue(), 32, LIMIT)
    stream = io.BytesIO()
    Image.new("L", (10_000, 10_000), 77).save(stream, "JPEG")
    found = decode(stream.getvalue(), 32, LIMIT)
    assert found.image.size[0] <= 1250
    assert square(found.image, 32)[0, 0].tolist() == pytest.approx([77] * 3, abs=2)


def test_a_path_that_does_not_exist_says_so(tmp_path) -> None:
    with pytest.raises(BadImage, match=r"nowhere\.jpg"):
        read_image("nowhere.jpg", str(tmp_path))
    with pytest.raises(BadImage, match="0 bytes"):
        read_image(b"")
    with pytest.raises(BadImage, match="expected bytes, a path or a URI, got int"):
        read_image(7)
    (tmp_path / "a.jpg").write_bytes(encoded())
    assert read_image("a.jpg", str(tmp_path)) == read_image(f"file://{tmp_path}/a.jpg") == encoded()


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("http://example.org/a.jpg", "Unrecognized filesystem type"),
        ("nothing://a/b", "Unrecognized filesystem type"),
        ("://", "cannot be read"),
        ("file:///%zz.jpg", "cannot be read: .*Cannot parse URI"),
        ("file:///a%00b.jpg", "cannot be read"),
        ("a\0b.jpg", "cannot be read: .*NUL"),
        ("\ud800.jpg", "cannot be read: .*surrogates"),
        ("x" * 5000, "cannot be read"),
        ("  \t\n", "white space alone"),
        (".", "is a folder, expected a file"),
        ("/dev/zero", "is a pipe, a device or another thing without an end, expected a file"),
        ("pipe", "is a pipe, a device"),
        ("broken", "is not there, expected a file"),
        ("loop", "cannot be read|not there"),
        ("vast", f"{1 << 40:,} bytes, at most 268,435,456 are read"),
        ("empty", "0 bytes"),
        (["a.jpg"], "expected bytes, a path or a URI, got list"),
        ({"path": "a.jpg"}, "expected bytes, a path or a URI, got dict"),
        (True, "expected bytes, a path or a URI, got bool"),
    ],
)
def test_a_bad_address_is_told_with_its_reason(address: Any, reason: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "broken").symlink_to(tmp_path / "none")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "empty").touch()
    with (tmp_path / "vast").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(BadImage, match=reason) as found:
        read_image(address, str(tmp_path))
    assert len(str(found.value)) < 400
    assert str(found.value).isprintable()


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("gs://bucket/a.jpg", "gs://bucket/a.jpg?retry_limit_seconds=5"),
        ("gcs://bucket/a.jpg", "gcs://bucket/a.jpg?retry_limit_seconds=5"),
        ("gs://bucket/a.jpg?retry_limit_seconds=60", "gs://bucket/a.jpg?retry_limit_seconds=60"),
        ("s3://bucket/a.jpg", "s3://bucket/a.jpg"),
        ("/tmp/gs/a.jpg", "/tmp/gs/a.jpg"),
    ],
)
def test_no_bucket_is_waited_for_longer_than_a_while(uri: str, expected: str) -> None:
    assert limited(uri) == expected


def test_a_file_without_a_size_is_not_read_for_ever() -> None:
    with pytest.raises(BadImage, match="0 bytes"):
        read_image("/proc/self/mem")


def saved(image: Image.Image, form: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_of(colour: int, depth: int, width: int, row: bytes, *more: bytes) -> bytes:
    """Return a PNG of one row of samples, by the specification: whatever Pillow can write."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, 1, depth, colour, 0, 0, 0))
    parts = [head, *more, chunk(b"IDAT", zlib.compress(b"\0" + row)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def pixels(data: bytes, size: int = 16) -> list[Any]:
    return np.asarray(decode(data, size, LIMIT).image).tolist()


GREY_16 = np.array([[0, 255, 256, 12345, 32768, 65535]], np.uint16)
GREY_8 = [round(value * 255 / 65535) for value in GREY_16[0].tolist()]  # 0, 1, 1, 48, 128, 255


@pytest.mark.parametrize(
    "data",
    [
        saved(Image.fromarray(GREY_16), "PNG"),
        saved(Image.fromarray(GREY_16), "TIFF"),
        saved(Image.fromarray(GREY_16), "TIFF", compression="tiff_lzw"),
        saved(Image.fromarray(GREY_16), "JPEG2000", irreversible=False),
        b"P5 6 1 65535\n" + GREY_16.astype(">u2").tobytes(),
    ],
)
def test_grey_of_16_bits_is_scaled_to_8(data: bytes) -> None:
    assert [part[0] for part in pixels(data)[0]] == GREY_8


def test_black_and_white_of_16_bits_change_places_where_the_file_says_so() -> None:
    data = saved(Image.fromarray(GREY_16), "TIFF", tiffinfo={262: 0})
    assert [part[0] for part in pixels(data)[0]] == [255 - value for value in GREY_8]


def test_colours_of_16_bits_are_scaled_to_8() -> None:
    data = png_of(2, 16, 2, struct.pack(">6H", 0, 12345, 65535, 32768, 256, 60000))
    for found, wanted in zip(pixels(data)[0], ([0, 12345, 65535], [32768, 256, 60000]), strict=True):
        assert found == pytest.approx([value * 255 / 65535 for value in wanted], abs=1)


@pytest.mark.parametrize("kind", [np.float32, np.int32])
@pytest.mark.parametrize("most", [1, 255, 70_000])
def test_numbers_that_do_not_tell_what_is_white_are_refused(kind: Any, most: int) -> None:
    data = saved(Image.fromarray((np.arange(12).reshape(3, 4) * most / 11).astype(kind)), "TIFF")
    with pytest.raises(BadImage, match="nothing tells which of its 32-bit numbers are black and white"):
        decode(data, 16, LIMIT)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (saved(Image.new("1", (1, 1), 1), "PNG"), [255, 255, 255]),
        (saved(Image.new("1", (1, 1), 0), "TIFF"), [0, 0, 0]),
        (saved(Image.new("LA", (1, 1), (100, 255)), "PNG"), [100, 100, 100]),
        (saved(Image.new("LA", (1, 1), (0, 51)), "PNG"), [204, 204, 204]),  # a fifth of black over white
        (saved(Image.new("RGBA", (1, 1), (255, 0, 0, 51)), "PNG"), [255, 204, 204]),
        (png_of(0, 8, 1, b"\x64", chunk(b"gAMA", struct.pack(">I", 45455))), [100, 100, 100]),
        (png_of(0, 8, 1, b"\x64", chunk(b"gAMA", struct.pack(">I", 100000))), [100, 100, 100]),
        (png_of(0, 8, 1, b"\x64", chunk(b"tRNS", b"\0\x64")), [255, 255, 255]),
        (png_of(0, 2, 1, b"\x40", chunk(b"tRNS", b"\0\x01")), [255, 255, 255]),
        (png_of(0, 4, 1, b"\x30", chunk(b"tRNS", b"\0\x03")), [255, 255, 255]),
        (png_of(0, 4, 1, b"\x30", chunk(b"tRNS", b"\0\x04")), [51, 51, 51]),
        (png_of(0, 16, 1, b"\x12\x34", chunk(b"tRNS", b"\x12\x34")), [255, 255, 255]),
        (png_of(0, 16, 1, b"\x12\x34", chunk(b"tRNS", b"\x12\x35")), [18, 18, 18]),
        (png_of(2, 16, 1, b"\x12\x34" * 3, chunk(b"tRNS", b"\x12\x34" * 3)), [255, 255, 255]),
        (png_of(3, 8, 1, b"\x01", chunk(b"PLTE", b"\0\0\0\1\2\3"), chunk(b"tRNS", b"\xff\x00")), [255, 255, 255]),
        (png_of(3, 8, 1, b"\x01", chunk(b"PLTE", b"\0\0\0\1\2\3"), chunk(b"tRNS", b"\x00\xff")), [1, 2, 3]),
        (saved(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "TIFF"), [255, 0, 0]),
    ],
)
def test_every_kind_of_pixel_gets_its_true_colour(data: bytes, expected: list[int]) -> None:
    assert pixels(data)[0][0] == expected


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_keeps_its_colours_whether_progressive_or_of_four_inks(mode: str, progressive: bool) -> None:
    """Pillow writes four inks as Adobe does: inverted, and marked so."""
    colour = {"L": 60, "RGB": (200, 60, 20), "CMYK": (55, 195, 235, 0)}[mode]
    data = saved(Image.new(mode, (32, 32), colour), "JPEG", quality=95, progressive=progressive)
    assert (b"Adobe" in data) == (mode == "CMYK")
    expected = [60] * 3 if mode == "L" else [200, 60, 20]
    assert pixels(data)[8][8] == pytest.approx(expected, abs=3)


@pytest.mark.parametrize(
    ("form", "mode"),
    [("JPEG", "RGB"), *((form, mode) for form in ("PNG", "WEBP", "TIFF") for mode in ("RGB", "RGBA")),
     ("PNG", "I;16"), ("TIFF", "I;16")],
)  # fmt: skip
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_is_turned_upright(form: str, mode: str, orientation: int) -> None:
    """One corner is black; where it is upright follows from where row 0 and column 0 are said to be."""
    height, width = 16, 32
    value = np.full((height, width), 255, np.uint8)
    value[:4, :8] = 0
    image = Image.fromarray(value.astype(np.uint16) * 257) if mode == "I;16" else Image.fromarray(value).convert(mode)
    exif = Image.Exif()
    exif[0x0112] = orientation
    found = np.asarray(decode(saved(image, form, exif=exif), 64, LIMIT).image)[..., 0] < 128
    bottom, right = {1: (0, 0), 2: (0, 1), 3: (1, 1), 4: (1, 0), 5: (0, 0), 6: (0, 1), 7: (1, 1), 8: (1, 0)}[
        orientation
    ]
    assert found.shape == ((width, height) if orientation > 4 else (height, width))
    assert found[-1 if bottom else 0, -1 if right else 0]
    assert found.sum() == pytest.approx(32, abs=4)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
@pytest.mark.parametrize("size", [(1, 1), (1, 10_000), (10_000, 1)])
def test_pictures_of_odd_sizes_keep_their_colour(form: str, size: tuple[int, int]) -> None:
    found = decode(saved(Image.new("RGB", size, (90, 90, 90)), form), 32, LIMIT).image
    assert square(found, 32)[7, 7].tolist() == pytest.approx([90] * 3, abs=2)


@pytest.mark.parametrize("form", ["PNG", "WEBP", "GIF", "BMP", "TIFF"])
@pytest.mark.parametrize("share", [0.05, 0.3, 0.6])
def test_a_file_of_any_form_that_is_cut_short_is_refused(form: str, share: float) -> None:
    data = encoded("P" if form == "GIF" else "RGB", form, (200, 200))
    with pytest.raises(BadImage):
        decode(data[: int(share * len(data))], 16, LIMIT)


@pytest.mark.parametrize("data", [b"junk", b"<html>", b"\x89PNG\r\n\x1a\n"])
def test_what_is_no_picture_is_told_in_the_same_words_each_time(data: bytes) -> None:
    with pytest.raises(BadImage) as found:
        decode(data, 16, LIMIT)
    assert str(found.value) == f"no picture of a known form, it begins with {data[:8]!r}"


def test_pictures_that_become_nothing_are_decoded_all_the_same() -> None:
    assert decode(encoded(), 0, LIMIT).image.mode == "RGB"


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_damaged_bytes_are_decoded_or_refused_and_nothing_else(data: st.DataObject) -> None:
    form = data.draw(st.sampled_from(["JPEG", "PNG", "WEBP", "GIF", "BMP"]))
    broken = bytearray(encoded("RGB", form))
    for _ in range(data.draw(st.integers(1, 20))):
        broken[data.draw(st.integers(0, len(broken) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(BadImage):
        assert decode(bytes(broken), 16, 1_000_000).image.mode == "RGB"


@pytest.mark.parametrize("name", SPOILED)
def test_spoiled_pictures_keep_their_size_and_change(name: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3)).astype(np.uint8)
    found = SPOILED[name](pixels)
    assert found.shape == pixels.shape
    assert not np.array_equal(found, pixels)


def test_pictures_are_swapped_within_their_class_alone() -> None:
    classes, present = np.array([0, 1, 1, 1, 2, 2, 3]), np.array([0, 1, 1, 0, 1, 1, 1], dtype=bool)
    source = swapped(classes, present, np.random.default_rng(0))
    assert (classes[source] == classes).all()
    assert source[[1, 2, 4, 5]].tolist() == [2, 1, 5, 4]
    assert source[[0, 3, 6]].tolist() == [0, 3, 6]  # no picture, or alone


def test_raw_features_are_finite_and_tell_colours_apart() -> None:
    red, blue = np.zeros((2, 32, 32, 3), dtype=np.uint8)
    red[..., 0], blue[..., 2] = 200, 200
    assert np.isfinite(raw_features(red)).all()
    assert np.abs(raw_features(red) - raw_features(blue)).max() > 0.5


@pytest.mark.parametrize(
    ("address", "folder", "shown"),
    [
        ("posters/7.jpg", "/data/films", "'/data/films/posters/7.jpg' is not there"),
        ("7.jpg", "/data/films/", "'/data/films/7.jpg' is not there"),
        ("7.jpg", "", "/7.jpg' is not there"),
        ("/pictures/7.jpg", "/data/films", "'/pictures/7.jpg' is not there"),
        ("file:///pictures/7.jpg", "/data", "'file:///pictures/7.jpg' is not there"),
    ],
)
def test_a_picture_that_is_not_there_is_told_with_where_it_was_looked_for(
    address: str, folder: str, shown: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    where = f"{tmp_path}{shown}" if shown.startswith("/") else shown
    with pytest.raises(BadImage, match=re.escape(where)):
        read_image(address, folder)
