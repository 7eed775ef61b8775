"""Pictures of every odd kind: decoded, or refused with the reason."""

import contextlib
import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from rec.data.images import SPOILED, BadImage, decode, raw_features, read_image, square, swapped

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
