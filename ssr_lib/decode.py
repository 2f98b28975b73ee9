"""From a picture file to its pixels, or to one line that says what the file is instead."""

from __future__ import annotations

import io
import os
import re
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

Image.init()  # registers TIFF and WebP, which Pillow otherwise loads late
warnings.filterwarnings("ignore", module=r"PIL\.")  # they name no file; what matters is raised here, and names it
_SAFE = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "DIB", "GIF", "PPM", "AVIF", "JPEG2000", "PSD")  # run no other program
FORMATS = tuple(name for name in _SAFE if name in Image.OPEN)
TARGA = (".tga", ".vda", ".icb", ".vst")  # a format without a mark of its own: believed by extension only
LEAST_BRIGHT = 1 << 14  # of 16 bits: below, the file may hold 10, 12 or 14 bits in 16, or a dark picture
_PNG = b"\x89PNG\r\n\x1a\n"
_KINDS = {  # what a file is that is none of `FORMATS`, by its first bytes
    rb"version https://git-lfs": "a Git LFS pointer (`git lfs pull` brings the picture)",
    rb".{4}ftyp(hei|hev|mif1|msf1)": "HEIC/HEIF",
    rb".{4}ftypavi": "AVIF",
    rb".{4}ftypcrx|FUJIFILMCCD-RAW": "a camera's raw data",
    rb".{4}ftyp": "a video",
    rb"\xff\x0a|.{4}JXL ": "JPEG XL",
    rb"%PDF|%!PS": "PDF or PostScript",
    rb"<svg|<\?xml": "SVG or XML",
    rb"(?i:<!DOCTYPE html|<html)": "a web page",
}


class ImageError(ValueError):
    """A picture that cannot be used; the message begins with its file name."""


def load_image(path: Path | str, *, exif_orientation: bool = True) -> np.ndarray:
    """Decode a picture of any common kind to RGB, (H, W, 3) uint8.

    Grey is repeated; of 16 bits the upper 8 are kept, of fewer in 16 the upper 8 that the file declares; palettes and
    CMYK are converted; what is transparent shows white behind it; of an animation the first frame. Raises `ImageError`
    naming the file where it is missing, empty, no picture, truncated, damaged, has grey levels of no certain scale, or
    declares more than 178,956,970 pixels (Pillow's limit against bombs).
    """
    with _opened(Path(path)) as picture:
        sixteen_bits = any(";16" in str(tile.args) for tile in picture.tile)  # of the file; Pillow keeps 8 of colours
        picture.load()
        try:
            if exif_orientation:
                ImageOps.exif_transpose(picture, in_place=True)
        except MemoryError:
            raise
        except Exception:  # a damaged EXIF block says nothing about the pixels, and OpenCV ignores it too
            pass
        return np.array(_to_rgb(picture, sixteen_bits))


def check_header(path: Path | str) -> None:
    """Raise `ImageError` as `load_image` where a file does not begin as a picture."""
    with _opened(Path(path)):
        pass


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """The picture, opened; what is raised on the way or in the block becomes an `ImageError` that names the file."""
    try:
        if path.exists() and not path.is_file():
            raise ImageError("a folder, a pipe or a device, not a file")
        formats = (*FORMATS, "TGA") if path.suffix.lower() in TARGA else FORMATS
        with open(path, "rb") as file:
            is_png = file.read(len(_PNG)) == _PNG
            source = _bare_png(file.read()) if is_png else file
            with Image.open(source, formats=formats) as picture:
                yield picture
    except MemoryError:
        raise
    except Exception as error:  # decoders fed with damaged bytes raise all kinds: struct.error, SyntaxError, zlib.error
        raise ImageError(f"{path}: {_reason(path, error)}") from error


def _reason(path: Path, error: Exception) -> str:
    if isinstance(error, ImageError):
        return str(error)
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno)
    if isinstance(error, Image.DecompressionBombError):
        return f"declares more than {2 * Image.MAX_IMAGE_PIXELS:,} pixels; shrink it with another program"
    with open(path, "rb") as file:
        head = file.read(64).removeprefix(b"\xef\xbb\xbf")  # a mark before UTF-8 text
    if not head:
        return "the file is empty (0 bytes)"
    kind = next((name for mark, name in _KINDS.items() if re.match(mark, head, re.DOTALL)), None)
    if kind is not None and kind not in FORMATS:
        return f"not a picture that is read here but {kind}"
    if isinstance(error, UnidentifiedImageError):
        return "not a picture that is read here"
    return f"truncated or damaged ({type(error).__name__}: {error})"


def _bare_png(data: bytes) -> io.BytesIO:
    """A PNG without its text and profiles, which may be large or damaged while the picture is whole."""
    kept = [_PNG]
    place = 0
    while place + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, place)
        chunk = data[place : place + length + 12]  # with its length, name and checksum
        intact = len(chunk) == length + 12 and zlib.crc32(chunk[4:-4]) == int.from_bytes(chunk[-4:], "big")
        wanted = intact and kind in (b"tRNS", b"eXIf")  # transparency and orientation
        if wanted or kind[:1].isupper():  # a capital marks what belongs to the picture itself
            kept.append(chunk)
        place += length + 12
    return io.BytesIO(b"".join(kept))


def _to_rgb(picture: Image.Image, sixteen_bits: bool) -> Image.Image:
    if picture.mode == "I" or picture.mode.startswith("I;16"):
        picture = _scaled(picture)
    elif picture.mode == "F":
        raise ImageError("floating-point pixels have no agreed range; save it with 8 or 16 bits")
    elif sixteen_bits:
        _want_bright(max(high for _, high in picture.convert("RGB").getextrema()) << 8)
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
    try:
        return picture.convert("RGB")
    except ValueError as error:
        raise ImageError(f"pixels of kind {picture.mode} are not read; save it as RGB") from error


def _scaled(picture: Image.Image) -> Image.Image:
    """Grey of more than 8 bits brought to 8, by the level of white that the file declares."""
    levels = np.asarray(picture).astype(np.int64)
    low, high = int(levels.min()), int(levels.max())
    tags = getattr(picture, "tag_v2", {})  # of TIFF
    bits = int(np.max(tags.get(258, 16)))  # BitsPerSample
    declared = tags.get(341, tags.get(281))  # SMaxSampleValue, MaxSampleValue
    if picture.format in ("PPM", "JPEG2000"):  # their headers say how many levels there are, and Pillow scales by them
        white = 65535
    elif declared is not None:
        white = int(np.max(declared))
    elif bits < 16:
        white = 2**bits - 1
    elif picture.mode == "I":
        raise ImageError(f"32 bits with values {low} to {high}, no range declared; save it with 8 or 16 bits")
    else:
        _want_bright(high)
        white = 65535
    if low < 0 or high > white:
        raise ImageError(f"values {low} to {high} where 0 to {white} are declared; save it with 8 or 16 bits")
    return Image.fromarray((levels * 256 // (white + 1)).astype(np.uint8))


def _want_bright(high: int) -> None:
    if high < LEAST_BRIGHT:
        told = f"16 bits with values up to {high} of 65535: a dark picture, or fewer bits than it declares"
        raise ImageError(f"{told}; save it with 8 bits")
