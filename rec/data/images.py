"""Pictures: bytes, paths or URIs to pixels; what is wrong with them in words; and ways to spoil them.

Letters: N pictures, H height, W width; pixels are uint8 with 3 channels last.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageFilter, ImageOps, UnidentifiedImageError
from pyarrow.fs import FileType

from rec.storage import absolute, open_uri

JPEG_QUALITIES = (10, 30)
MAX_BYTES = 1 << 28
"""Most bytes of a picture's file."""
PATIENCE_S = 5
KINDS = {
    FileType.NotFound: "not there",
    FileType.Directory: "a folder",
    FileType.Unknown: "a pipe, a device or another thing without an end",
}
ALPHA = ("RGBA", "LA", "PA", "RGBa", "La")
BITS_PER_SAMPLE, PHOTOMETRIC, WHITE_IS_ZERO = 258, 262, 0
"""Fields of TIFF."""
PNG_DEPTH = 24
"""Where a PNG's first chunk tells the bits of a sample."""
LONGEST_SHOWN = 160
"""Characters of an address in a message."""


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
        BadImage: the address names no file that can be read, or a file of no or of more than `MAX_BYTES` bytes.
    """
    if isinstance(value, str):
        value = _fetched(value, folder)
    if not isinstance(value, bytes):
        raise BadImage(f"expected bytes, a path or a URI, got {type(value).__name__}")
    if not value:
        raise BadImage("0 bytes")
    if len(value) > MAX_BYTES:
        raise BadImage(f"more than {MAX_BYTES:,} bytes")
    return value


def _fetched(address: str, folder: str) -> bytes:
    if not address.strip():
        raise BadImage("an address of white space alone")
    relative = "://" not in address and not address.startswith("/")
    address = absolute(f"{folder.rstrip('/')}/{address}" if folder and relative else address)
    try:
        filesystem, path = open_uri(limited(address))
        info = filesystem.get_file_info(path)
        if info.type != FileType.File:  # a pipe or a device is never opened: reading it may not end
            raise BadImage(f"{_shown(address)} is {KINDS[info.type]}, expected a file")
        if info.size is not None and info.size > MAX_BYTES:
            raise BadImage(f"{_shown(address)}: {info.size:,} bytes, at most {MAX_BYTES:,} are read")
        with filesystem.open_input_stream(path) as stream:
            return bytes(stream.read(MAX_BYTES + 1 if info.size is None else info.size))
    except BadImage:
        raise
    except Exception as error:  # file systems raise whatever they like at an address that is none
        raise BadImage(f"{_shown(address)} cannot be read: {_first_line(error)}") from error


def limited(uri: str) -> str:
    """Return an address that is not asked for longer than a while: Google's own limit is a quarter of an hour."""
    return f"{uri}?retry_limit_seconds={PATIENCE_S}" if uri.startswith(("gs://", "gcs://")) and "?" not in uri else uri


def decode(data: bytes, size: int, max_pixels: int) -> Decoded:
    """Return a picture in RGB, not smaller than `size` where the file is not.

    The first frame of an animation counts; 16 bits become 8, CMYK, palettes and transparency (over white) become RGB;
    the camera's orientation is applied. A JPEG is decoded at the smallest scale that suffices.

    Raises:
        BadImage: the file is damaged, cut short, no picture, has more than `max_pixels`, or does not tell which of its
            numbers are black and white.
    """
    try:
        with warnings.catch_warnings(), Image.open(io.BytesIO(data)) as image:
            warnings.simplefilter("ignore")
            notes = []
            width, height = image.size
            if width < 1 or height < 1:
                raise BadImage(f"{width} x {height} pixels")
            if image.format == "JPEG":
                image.draft(None, (max(size, 1) * 2, max(size, 1) * 2))
            if image.size[0] * image.size[1] > max_pixels:
                raise BadImage(f"{width} x {height} pixels, at most {max_pixels} are decoded")
            if getattr(image, "n_frames", 1) > 1:
                image.seek(0)
                notes.append("animated: first frame")
            image.load()
            if image.mode == "CMYK":
                notes.append("CMYK: converted")
            if image.format == "PNG":
                _scale_transparency(image, data)
            return Decoded(_rgb(image), ", ".join(notes))
    except BadImage:
        raise
    except UnidentifiedImageError as error:  # whose text holds an address in memory, another one at each run
        raise BadImage(f"no picture of a known form, it begins with {data[:8]!r}") from error
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
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


def _rgb(image: Image.Image) -> Image.Image:
    """Return a loaded picture upright, in RGB over white."""
    turned: Image.Image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I;16") or (image.mode, image.format) == ("I", "PPM"):
        return _from_16_bits(turned, getattr(image, "tag_v2", {}))
    if image.mode in ("I", "F"):
        raise BadImage(f"mode {image.mode}: nothing tells which of its 32-bit numbers are black and white")
    if image.mode in ALPHA or "transparency" in turned.info:
        if image.mode in ("RGBa", "La"):
            turned = turned.convert(image.mode.upper())
        turned = turned.convert("RGBA")
        turned = Image.alpha_composite(Image.new("RGBA", turned.size, "white"), turned)
    return turned.convert("RGB")


def _from_16_bits(image: Image.Image, tags: Mapping[int, Any]) -> Image.Image:
    """Return grey of 16 bits in RGB: Pillow's own conversion clips everything above 255 to white."""
    value_HW = np.asarray(image).astype(np.uint32)
    most = (1 << tags.get(BITS_PER_SAMPLE, (16,))[0]) - 1
    grey_HW = ((value_HW * 255 + most // 2) // most).clip(0, 255).astype(np.uint8)
    if tags.get(PHOTOMETRIC) == WHITE_IS_ZERO:
        grey_HW = 255 - grey_HW
    if isinstance(through := image.info.get("transparency"), int):
        grey_HW = np.where(value_HW == through, np.uint8(255), grey_HW)
    return Image.fromarray(grey_HW).convert("RGB")


def _scale_transparency(image: Image.Image, data: bytes) -> None:
    """Bring a PNG's transparent colour to the 8 bits that its pixels are decoded to, which Pillow leaves out."""
    depth, colour = data[PNG_DEPTH], image.info.get("transparency")
    if image.mode == "L" and isinstance(colour, int) and depth < 8:
        image.info["transparency"] = colour * 255 // ((1 << depth) - 1)
    if image.mode == "RGB" and isinstance(colour, tuple) and depth == 16:
        image.info["transparency"] = tuple(part >> 8 for part in colour)


def _shown(address: str) -> str:
    half = LONGEST_SHOWN // 2
    return repr(address if len(address) <= LONGEST_SHOWN else f"{address[:half]}...{address[-half:]}")


def _first_line(error: BaseException) -> str:
    line = (str(error).splitlines() or [type(error).__name__])[0][:200]
    return "".join(letter if letter.isprintable() else "?" for letter in line)
