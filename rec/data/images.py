"""Pictures: bytes, paths or URIs to pixels; what is wrong with them in words; and ways to spoil them.

Letters: N pictures, H height, W width; pixels are uint8 with 3 channels last.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageFilter, ImageOps, UnidentifiedImageError

from rec.storage import open_uri

JPEG_QUALITIES = (10, 30)


class BadImage(Exception):
    """A picture that cannot be used; the text says why."""


@dataclass(frozen=True, slots=True)
class Decoded:
    """A picture as pixels."""

    image: Image.Image
    """RGB, at most a few times larger than asked for."""
    note: str = ""
    """What was done beyond decoding, such as "animated: first frame"."""


def read_image(value: Any, folder: str = "") -> bytes:
    """Return a picture's bytes; `value` is bytes, a path or a URI, relative paths start at `folder`.

    Raises:
        BadImage: there is no such file, or it is empty.
    """
    if isinstance(value, str):
        relative = "://" not in value and not value.startswith("/")
        filesystem, path = open_uri(f"{folder.rstrip('/')}/{value}" if folder and relative else value)
        try:
            with filesystem.open_input_stream(path) as stream:
                value = bytes(stream.read())
        except OSError as error:
            raise BadImage(f"{path!r} cannot be read: {_first_line(error)}") from error
    if not isinstance(value, bytes):
        raise BadImage(f"expected bytes, a path or a URI, got {type(value).__name__}")
    if not value:
        raise BadImage("0 bytes")
    return value


def decode(data: bytes, size: int, max_pixels: int) -> Decoded:
    """Return a picture in RGB, not smaller than `size` where the file is not.

    The first frame of an animation counts; CMYK, palettes and transparency (over white) become RGB; the camera's
    orientation is applied. A JPEG is decoded at the smallest scale that suffices.

    Raises:
        BadImage: the file is damaged, cut short, no picture, or has more than `max_pixels`.
    """
    try:
        with warnings.catch_warnings(), Image.open(io.BytesIO(data)) as image:
            warnings.simplefilter("ignore")
            notes = []
            width, height = image.size
            if width < 1 or height < 1:
                raise BadImage(f"{width} x {height} pixels")
            if image.format == "JPEG":
                image.draft(None, (size * 2, size * 2))
            if image.size[0] * image.size[1] > max_pixels:
                raise BadImage(f"{width} x {height} pixels, at most {max_pixels} are decoded")
            if getattr(image, "n_frames", 1) > 1:
                image.seek(0)
                notes.append("animated: first frame")
            mode = image.mode
            image.load()
            found: Image.Image = ImageOps.exif_transpose(image)
            if mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
                found = found.convert("RGBA")
                white = Image.new("RGBA", found.size, "white")
                found = Image.alpha_composite(white, found)
            if mode == "CMYK":
                notes.append("CMYK: converted")
            return Decoded(found.convert("RGB"), ", ".join(notes))
    except BadImage:
        raise
    except (OSError, UnidentifiedImageError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise BadImage(_first_line(error)) from error
    except Exception as error:  # decoders of odd formats raise whatever they like
        raise BadImage(f"{type(error).__name__}: {_first_line(error)}") from error


def square(image: Image.Image, size: int) -> np.ndarray:
    """Return pixels (size, size, 3) of the whole picture, scaled without keeping its proportions."""
    return np.asarray(image.resize((size, size), Image.Resampling.BILINEAR), dtype=np.uint8)


def png(pixels_HW3: np.ndarray) -> bytes:
    """Return pixels as a PNG file."""
    stream = io.BytesIO()
    Image.fromarray(pixels_HW3).save(stream, "PNG")
    return stream.getvalue()


def raw_features(pixels_HW3: np.ndarray) -> np.ndarray:
    """Return plain features of a picture, float32 (8 * 8 * 3 + 3 * 16): mean colours on a grid, and histograms."""
    grid = np.asarray(Image.fromarray(pixels_HW3).resize((8, 8), Image.Resampling.BOX), dtype=np.float32) / 255
    histograms = [np.histogram(pixels_HW3[..., c], 16, (0, 256))[0] / pixels_HW3[..., c].size for c in range(3)]
    return np.concatenate([grid.ravel() - 0.5, *histograms]).astype(np.float32)


def jpeg(quality: int) -> Callable[[np.ndarray], np.ndarray]:
    """Return a function that sends pixels through JPEG of a quality (1 to 95)."""

    def spoil(pixels_HW3: np.ndarray) -> np.ndarray:
        stream = io.BytesIO()
        Image.fromarray(pixels_HW3).save(stream, "JPEG", quality=quality)
        return np.asarray(Image.open(stream).convert("RGB"))

    return spoil


def blur(pixels_HW3: np.ndarray) -> np.ndarray:
    """Return pixels under a Gaussian blur whose radius is 4 % of the width."""
    radius = 0.04 * pixels_HW3.shape[1]
    return np.asarray(Image.fromarray(pixels_HW3).filter(ImageFilter.GaussianBlur(radius)))


def crop(pixels_HW3: np.ndarray) -> np.ndarray:
    """Return the middle 70 % of a picture's width and height, scaled up again."""
    height, width = pixels_HW3.shape[:2]
    y, x = round(0.15 * height), round(0.15 * width)
    return square(Image.fromarray(pixels_HW3[y : height - y, x : width - x]), width)


SPOILED: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    **{f"jpeg quality {quality}": jpeg(quality) for quality in JPEG_QUALITIES},
    "blur": blur,
    "crop": crop,
}
"""Ways in which pictures are spoiled to see what a model makes of it."""


def swapped(class_I: np.ndarray, present_I: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return for each item the item whose picture it gets: another one of its class that has a picture."""
    source_I = np.arange(len(class_I))
    for value in np.unique(class_I):
        members = np.flatnonzero((class_I == value) & present_I)
        if len(members) > 1:
            order = rng.permutation(members)
            source_I[order] = np.roll(order, 1)
    return source_I


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
