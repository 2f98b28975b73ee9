"""Decoding never lies about a file: its pixels, or one line that says what it is instead."""

import contextlib
import io
import os
import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from ssr_lib.decode import ImageError, load_image, opened

Y, X = np.mgrid[0:90, 0:120]
SLOPES = np.stack([2 * X, 2 * Y, 255 - X - Y], axis=-1) + np.random.default_rng(0).normal(0, 3, (90, 120, 3))
PHOTO = SLOPES.clip(0, 255).astype(np.uint8)  # smooth, with some noise: what JPEG was made for
LEVELS = np.linspace(0, 1, 600).reshape(20, 30)
LONG = zlib.compress(bytes(2 << 20))


def encode(format, mode="RGB", **options):
    buffer = io.BytesIO()
    Image.fromarray(PHOTO).convert(mode).save(buffer, format, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("mode,format,slack", [
    ("RGB", "PNG", 0), ("RGBA", "PNG", 0), ("RGB", "BMP", 0), ("RGB", "TIFF", 0), ("RGB", "TGA", 0), ("RGB", "JPEG", 3),
    ("RGB", "MPO", 3), ("RGB", "AVIF", 4), ("RGB", "JPEG2000", 3), ("CMYK", "JPEG", 4), ("P", "GIF", 25),
])  # fmt: skip
def test_colour_comes_back_as_it_was_or_nearly(tmp_path, mode, format, slack):
    path = tmp_path / ("x.tga" if format == "TGA" else "x")
    path.write_bytes(encode(format, mode))
    assert np.abs(load_image(path).astype(int) - PHOTO).mean() <= slack


@pytest.mark.parametrize("white,message", [(65536, None), (4096, r"x\.png: 16 bits with values up to 3840")])
def test_sixteen_bit_colour_keeps_its_upper_eight_bits_and_twelve_bits_in_sixteen_are_refused(tmp_path, white, message):
    rows = np.random.default_rng(3).integers(0, white, (5, 7, 3), dtype=np.uint16)
    cv2.imwrite(str(tmp_path / "x.png"), rows[:, :, ::-1])
    with pytest.raises(ImageError, match=message) if message else contextlib.nullcontext():
        np.testing.assert_array_equal(load_image(tmp_path / "x.png"), rows >> 8)


def test_exif_orientation_is_applied_as_the_standard_defines_it_and_only_when_told(tmp_path):
    exif, aside = Image.Exif(), PHOTO.swapaxes(0, 1)
    views = [PHOTO, PHOTO[:, ::-1], PHOTO[::-1, ::-1], PHOTO[::-1]]  # first row and column: top left, top right, …
    views += [aside, aside[:, ::-1], aside[::-1, ::-1], aside[::-1]]  # left top, right top, right bottom, left bottom
    for orientation, upright in enumerate(views, start=1):
        exif[0x0112] = orientation
        Image.fromarray(PHOTO).save(tmp_path / "x.png", exif=exif)
        np.testing.assert_array_equal(load_image(tmp_path / "x.png"), upright)
        np.testing.assert_array_equal(load_image(tmp_path / "x.png", exif_orientation=False), PHOTO)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF", "BMP"])
@pytest.mark.parametrize("kept", [0.02, 0.5, 0.95])
def test_truncated_file_is_an_error_that_names_it(tmp_path, format, kept):
    data = encode(format)
    (tmp_path / "cut.jpg").write_bytes(data[: int(kept * len(data))])
    with pytest.raises(ImageError, match=r"cut\.jpg"):
        load_image(tmp_path / "cut.jpg")


@pytest.mark.parametrize("content,message", [
    (None, "No such file"), (os.mkdir, "a folder, a pipe or a device"), (b"", "the file is empty"),
    (os.mkfifo, "a folder, a pipe or a device"),  # not waited for
    (b"I am no picture\n" * 40, "not a picture that is read here$"),
    (b"P6 100000 100000 255\n", "exceeds limit of 178956970 pixels"),
    (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(200), "but HEIC/HEIF$"),
    (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "but a Git LFS pointer .*git lfs pull"),
    (b"<!DOCTYPE html><html>", "but a web page$"), (b"\xff\x0a\0\0", "but JPEG XL$"),
])  # fmt: skip
def test_what_is_no_picture_is_called_what_it_is(tmp_path, content, message):
    path = tmp_path / "bad.jpg"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        content(path)
    with pytest.raises(ImageError, match=rf"bad\.jpg: (.* )?{message}"), opened(path):
        pytest.fail("opened")


@pytest.mark.parametrize("mode,format", [("RGBA", "PNG"), ("LA", "PNG"), ("RGBA", "WEBP"), ("RGBA", "TIFF")])
def test_what_is_transparent_shows_white(tmp_path, mode, format):
    drawing = np.zeros((20, 30, 4), np.uint8)
    drawing[5:10, :, 3] = 255  # black ink
    Image.fromarray(drawing).convert(mode).save(tmp_path / "x", format, lossless=True)
    np.testing.assert_array_equal(load_image(tmp_path / "x"), 255 - drawing[:, :, 3:].repeat(3, axis=2))
    Image.fromarray(np.full((4, 4, 4), (100, 0, 200, 128), np.uint8)).save(tmp_path / "half.png")
    assert np.abs(load_image(tmp_path / "half.png").astype(int) - (177, 127, 227)).max() <= 1


@pytest.mark.parametrize("name,kind,white,declared,words", [
    ("x.png", np.uint8, 255, {}, None), ("x.png", np.uint16, 65535, {}, None), ("x.tif", np.uint16, 65535, {}, None),
    ("x.tif", np.int32, 255, {281: 255}, None), ("x.tif", np.uint16, 4095, {281: 4095}, None),
    ("x.tif", np.uint16, 1023, {341: 1023}, None), ("x.tif", np.float32, 1, {}, "floating-point pixels"),
    ("x.tif", np.int32, 255, {}, "32 bits with values 0 to 255, no range declared"),
    ("x.png", np.uint16, 4095, {}, "16 bits with values up to 4095"),
    ("x.tif", np.uint16, 4095, {281: 255}, "values 0 to 4095 where 0 to 255 are declared"),
])  # fmt: skip
def test_grey_is_scaled_by_what_the_file_declares_or_refused(tmp_path, name, kind, white, declared, words):
    Image.fromarray((LEVELS * white).astype(kind)).save(tmp_path / name, tiffinfo=declared)
    with pytest.raises(ImageError, match=f"{name}: .*{words}") if words else contextlib.nullcontext():
        assert np.abs(load_image(tmp_path / name) - 255 * LEVELS[:, :, None]).max() <= 1.5


@pytest.mark.parametrize("kind,body,intact", [(b"zTXt", b"Comment\0\0" + LONG, True), (b"eXIf", b"MM\0*", False),
                                              (b"iCCP", b"icc\0\0" + LONG, True), (b"tEXt", b"a\0b", False)])  # fmt: skip
@pytest.mark.parametrize("at", [33, -12])  # behind the header, before the end
def test_a_whole_png_with_large_or_damaged_notes_is_read(tmp_path, kind, body, intact, at):
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encode("PNG", exif=exif)
    chunk = struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body) ^ (not intact))
    (tmp_path / "x.png").write_bytes(data[:at] + chunk + data[at:])
    np.testing.assert_array_equal(load_image(tmp_path / "x.png", exif_orientation=False), PHOTO)
    assert kind == b"eXIf" or load_image(tmp_path / "x.png").shape == (120, 90, 3), "still turned"
    damaged = bytearray(data)
    damaged[len(data) // 2] ^= 255
    (tmp_path / "x.png").write_bytes(damaged)
    with pytest.raises(ImageError, match=r"x\.png: truncated or damaged \(checksum of 'IDAT'\)"):
        load_image(tmp_path / "x.png")


def test_no_library_warns_of_a_file_that_it_does_not_name(tmp_path, recwarn, capfd):
    tiff = encode("TIFF").replace(struct.pack("<HHI", 277, 3, 1), struct.pack("<HHI", 60000, 3, 1))
    for name, data in {"a.jpg": encode("JPEG", exif=b"Exif\0\0garbage"), "b.tif": tiff, "c.gif": encode("GIF")}.items():
        (tmp_path / name).write_bytes(data)
    for path in tmp_path.iterdir():
        with contextlib.suppress(ImageError):
            load_image(path)
    assert not recwarn.list and capfd.readouterr().err == ""
