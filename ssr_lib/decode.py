"""From a picture file to its pixels, or to one line that says what the file is instead."""

import io
import re
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

Image.init()  # registers TIFF and WebP, which Pillow otherwise loads late
warnings.filterwarnings("ignore", module=r"PIL\.")  # they name no file; what matters is raised here, and names it
_SAFE = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "DIB", "GIF", "PPM", "AVIF", "JPEG2000", "PSD")  # run no other program
FORMATS = tuple(name for name in _SAFE if name in Image.OPEN)
TARGA = (".tga", ".vda", ".icb", ".vst")  # a format without a mark of its own: believed by extension only
_PNG = b"\x89PNG\r\n\x1a\n"
_KINDS = {  # what a file is that is none of `FORMATS`, by its first bytes
    rb"version https://git-lfs": "a Git LFS pointer (`git lfs pull` brings the picture)",
    rb".{4}ftyp(hei|hev|mif1|msf1)": "HEIC/HEIF",
    rb".{4}ftypavi": "AVIF",
    rb"\xff\x0a|.{4}JXL ": "JPEG XL",
    rb"(?i:<!DOCTYPE html|<html)": "a web page",
}


class ImageError(ValueError):
    """A picture that cannot be used; the message begins with its file name."""


def load_image(path: Path | str, *, exif_orientation: bool = True) -> np.ndarray:
    """Decode a picture of any common kind to RGB, (H, W, 3) uint8.

    Grey is repeated; of 16 bits the upper 8 are kept, of fewer in 16 the upper 8 that the file declares; palettes and
    CMYK are converted; what is transparent shows white behind it; of an animation the first frame. Raises `ImageError`
    naming the file, also for grey levels of no certain scale and for more than 178,956,970 pixels (a bomb for Pillow).
    """
    with opened(Path(path)) as picture:
        sixteen_bits = any(";16" in str(tile.args) for tile in picture.tile)  # of the file; Pillow keeps 8 of colours
        picture.load()
        if exif_orientation:  # a damaged note says nothing about the pixels
            with suppress(SyntaxError, ValueError, LookupError, TypeError, AttributeError, OSError, struct.error):
                ImageOps.exif_transpose(picture, in_place=True)
        if picture.mode == "F":
            raise ImageError("floating-point pixels have no agreed range; save it with 8 or 16 bits")
        if picture.mode == "I" or picture.mode.startswith("I;16"):
            picture = _scaled(picture)
        elif sixteen_bits:
            _want_bright(max(high for _, high in picture.convert("RGB").getextrema()) << 8)
        if picture.has_transparency_data:
            picture = picture.convert("RGBA")
            picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
        return np.array(picture.convert("RGB"))


@contextmanager
def opened(path: Path) -> Iterator[Image.Image]:
    """A picture of which the header was read; what is raised on the way or in the block becomes an `ImageError`."""
    try:
        if path.exists() and not path.is_file():
            raise ImageError("a folder, a pipe or a device, not a file")
        formats = (*FORMATS, "TGA") if path.suffix.lower() in TARGA else FORMATS
        with open(path, "rb") as file:
            source = _bare_png(file.read()) if file.read(len(_PNG)) == _PNG else file
            with Image.open(source, formats=formats) as picture:
                yield picture
    except MemoryError:
        raise
    except Exception as error:  # decoders fed with damaged bytes raise all kinds: struct.error, SyntaxError, zlib.error
        raise ImageError(f"{path}: {_reason(path, error)}") from error


def _reason(path: Path, error: Exception) -> str:
    if isinstance(error, (ImageError, Image.DecompressionBombError)):
        return str(error)
    if isinstance(error, OSError) and error.errno:
        return error.strerror
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
    kept, place = [_PNG], 0
    while place + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, place)
        chunk = data[place : place + length + 12]  # with its length, name and checksum
        intact = zlib.crc32(chunk[4:-4]).to_bytes(4, "big") == chunk[-4:]
        if kind[:1].isupper() and not intact:  # a capital marks what belongs to the picture itself
            raise ImageError(f"truncated or damaged (checksum of {kind.decode('latin1')!r})")
        if kind[:1].isupper() or (intact and kind in (b"tRNS", b"eXIf")):  # transparency and orientation
            kept.append(chunk)
        place += length + 12
    return io.BytesIO(b"".join(kept))


def _scaled(picture: Image.Image) -> Image.Image:
    """Grey of more than 8 bits brought to 8, by the level of white that the file declares."""
    levels = np.asarray(picture).astype(np.int64)
    low, high = int(levels.min()), int(levels.max())
    tags = getattr(picture, "tag_v2", {})  # of TIFF
    bits = int(np.max(tags.get(258, 16)))  # BitsPerSample
    declared = tags.get(341, tags.get(281))  # SMaxSampleValue, MaxSampleValue
    white = 2**bits - 1 if declared is None else int(np.max(declared))
    if declared is None and picture.format not in ("PPM", "JPEG2000"):  # whose headers tell Pillow what white is
        if picture.mode == "I":
            raise ImageError(f"{bits} bits with values {low} to {high}, no range declared; save it with 8 or 16 bits")
        if bits == 16:
            _want_bright(high)
    if low < 0 or high > white:
        raise ImageError(f"values {low} to {high} where 0 to {white} are declared; save it with 8 or 16 bits")
    return Image.fromarray((levels * 256 // (white + 1)).astype(np.uint8))


def _want_bright(high: int) -> None:
    if high < 1 << 14:  # the file may hold 10, 12 or 14 bits in 16
        raise ImageError(f"16 bits with values up to {high}: dark, or of fewer bits than it says; save it with 8 bits")
