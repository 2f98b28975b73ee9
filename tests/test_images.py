"""Decoding never lies about a file, and each preset gives the tensors of the program it stands for."""

import contextlib
import io
import json
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps

from ssr_lib.decode import ImageError, declared_sizes, load_image, may_pass
from ssr_lib.images import PRESETS, Preprocess, crop, to_tensors

GOLDEN = Path(__file__).parent / "golden" / "image.npz"


@pytest.fixture(scope="module")
def golden():
    return dict(np.load(GOLDEN))


@pytest.fixture
def photo():
    """A smooth colour gradient with some noise, (90, 120, 3) uint8: what JPEG was made for."""
    y, x = np.mgrid[0:90, 0:120]
    gradient = np.stack([2 * x, 2 * y, 255 - x - y], axis=-1) + np.random.default_rng(0).normal(0, 3, (90, 120, 3))
    return gradient.clip(0, 255).astype(np.uint8)


# ---- presets -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("preset", ["senet", "cvnet"])
def test_senet_and_cvnet_load_exactly_as_the_reference_at_every_scale(golden, preset):
    rgb = golden["image_bgr_u8"][:, :, ::-1]
    for what, box in (("db", None), ("query", golden["bbx"])):
        for i, tensor in enumerate(to_tensors(rgb, PRESETS[preset], box)):
            assert tensor.shape == golden[f"{what}_scale{i}"].shape
            np.testing.assert_allclose(tensor, golden[f"{what}_scale{i}"], atol=1e-6)


def test_superglobal_resizes_the_normalised_tensor_with_antialias(golden):
    down, same, up = to_tensors(golden["image_bgr_u8"][:, :, ::-1], PRESETS["superglobal"])
    np.testing.assert_allclose(down, golden["sg_resize_0.7071"][0], atol=1e-5)
    np.testing.assert_allclose(same, golden["db_scale1"], atol=1e-6)
    np.testing.assert_allclose(up, golden["sg_resize_1.4142"][0], atol=1e-5)


@pytest.mark.parametrize("shape", [(1100, 801), (333, 1400), (700, 800)])
def test_cirtorch_shrinks_with_a_lanczos_thumbnail_then_scales_the_tensor(shape):
    image = np.random.default_rng(1).integers(0, 256, (*shape, 3), dtype=np.uint8)
    box = (10.6, 20.2, shape[1] - 30.5, shape[0] - 40.9)
    cropped = Image.fromarray(image).crop(tuple(round(v) for v in box))
    longest = 1024 * max(cropped.size) / max(shape)
    if longest < max(cropped.size):
        cropped.thumbnail((longest, longest), Image.Resampling.LANCZOS, reducing_gap=None)
    expected = torch.from_numpy(np.asarray(cropped) / np.float32(255)).permute(2, 0, 1)
    expected = (expected - torch.tensor([0.485, 0.456, 0.406])[:, None, None]) / torch.tensor([0.229, 0.224, 0.225])[
        :, None, None
    ]
    for tensor, scale in zip(to_tensors(image, PRESETS["cirtorch"], box), (1.0, 2**0.5, 2**-0.5), strict=True):
        scaled = expected[None]
        if scale != 1:
            scaled = F.interpolate(scaled, scale_factor=scale, mode="bilinear", align_corners=False)
        assert tensor.shape == scaled.shape[1:]
        torch.testing.assert_close(tensor, scaled[0], atol=1e-5, rtol=1e-5)


def test_lite_maps_black_to_minus_one_and_white_to_one():
    image = np.zeros((8, 8, 3), np.uint8)
    image[:, 4:] = 255
    (tensor,) = to_tensors(image, PRESETS["lite"])
    assert tensor.dtype == torch.float32 and tensor.shape == (3, 8, 8)
    assert tensor[:, :, 0].unique().tolist() == [-1.0] and tensor[:, :, 7].unique().tolist() == [1.0]


# ---- sizes ---------------------------------------------------------------------------------------------------------


def sizes(image, box=None, **options):
    return [tuple(t.shape[1:]) for t in to_tensors(image, Preprocess(**options), box)]


def test_longest_side_rule_shrinks_keeps_the_shape_and_enlarges_only_when_told(photo):
    assert sizes(photo, size=60) == [(45, 60)]
    assert sizes(photo, size=240) == [(90, 120)]
    assert sizes(photo, size=240, enlarge=True) == [(180, 240)]
    assert sizes(photo, size=60, scales=(0.5, 1, 2)) == [(22, 30), (45, 60), (90, 120)]
    assert sizes(np.zeros((1, 5000, 3), np.uint8), size=384) == [(1, 384)]


def test_fixed_rule_squashes_to_a_square(photo):
    assert sizes(photo, size_rule="fixed", size=64) == [(64, 64)]


def test_none_rule_keeps_every_pixel(photo):
    assert sizes(photo, size_rule="none", size=None) == [(90, 120)]


def test_relative_box_size_shrinks_a_crop_as_much_as_its_whole_picture(photo):
    box = (0, 0, 60, 90)
    assert sizes(photo, box, size=60, box_size="relative") == [(45, 30)]
    assert sizes(photo, box, size=60, box_size="absolute") == [(60, 40)]


def test_area_interpolation_is_the_mean_of_the_pixels_it_covers():
    image = np.random.default_rng(2).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    (tensor,) = to_tensors(image, Preprocess(size=4, mean=(0, 0, 0), std=(1, 1, 1)))
    expected = image.reshape(4, 2, 4, 2, 3).mean(axis=(1, 3)).transpose(2, 0, 1)
    assert np.abs(tensor.numpy() * 255 - expected).max() <= 0.51  # rounded to whole levels


def test_box_is_truncated_or_rounded_to_whole_pixels(photo):
    assert crop(photo, (10.7, 5.2, 100.9, 80.6)).shape == (75, 90, 3)
    assert crop(photo, (10.7, 5.2, 100.9, 80.6), "round").shape == (76, 90, 3)
    assert (crop(photo, (10.7, 5.2, 100.9, 80.6)) == photo[5:80, 10:100]).all()


@pytest.mark.parametrize("box", [(0, 0, 130, 90), (-5, 0, 50, 50), (10.2, 10, 10.9, 50), (200, 200, 300, 300)])
def test_box_of_another_picture_is_refused(photo, box):
    with pytest.raises(ImageError, match=r"120 x 90 px"):
        crop(photo, box)


def test_box_that_ends_a_pixel_outside_is_cut_at_the_border(photo):
    assert crop(photo, (0, -1, 121, 91)).shape == photo.shape


# ---- the record ----------------------------------------------------------------------------------------------------


def test_record_survives_json():
    for preprocess in PRESETS.values():
        assert Preprocess.from_dict(json.loads(json.dumps(preprocess.to_dict()))) == preprocess


@pytest.mark.parametrize(
    "wrong",
    [
        {"color_order": "rbg"},
        {"size_rule": "none"},
        {"size": 0},
        {"scales": ()},
        {"scales": (1, -1)},
        {"std": (1, 1, 0)},
        {"interpolation_up": "lanczos"},
        {"mean": (0.5,)},
        {"join": "max", "normalize_scales": False},
    ],
)
def test_illegal_value_is_refused_by_field_name(wrong):
    with pytest.raises(ValueError, match=f"preprocess .*{next(iter(wrong))}"):
        Preprocess(**wrong)


def test_unknown_field_is_refused():
    with pytest.raises(ValueError, match="'sice'"):
        Preprocess.from_dict({"sice": 384})


# ---- decoding ------------------------------------------------------------------------------------------------------


def with_chunk(data, kind, body, *, intact=True, at=33):
    """A PNG with one more chunk, by default behind its header (33 bytes), with a right or a wrong checksum."""
    checksum = zlib.crc32(kind + body) ^ (not intact)
    return data[:at] + struct.pack(">I", len(body)) + kind + body + struct.pack(">I", checksum) + data[at:]


def png(width, height, bits, pixels):
    """A PNG of RGB rows as they stand in the file, whatever size its header declares."""
    chunks = {
        b"IHDR": struct.pack(">IIBBBBB", width, height, bits, 2, 0, 0, 0),
        b"IDAT": zlib.compress(pixels),
        b"IEND": b"",
    }
    data = b"\x89PNG\r\n\x1a\n"
    for kind, body in chunks.items():
        data = with_chunk(data, kind, body, at=len(data))
    return data


def encode(photo, format="JPEG", mode="RGB", **options):
    buffer = io.BytesIO()
    Image.fromarray(photo).convert(mode).save(buffer, format, **options)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "mode,format", [("RGB", "PNG"), ("RGBA", "PNG"), ("RGB", "BMP"), ("RGB", "TIFF"), ("RGB", "PPM")]
)
def test_lossless_colour_comes_back_as_it_was(tmp_path, photo, mode, format):
    (tmp_path / "x").write_bytes(encode(photo, format, mode))
    np.testing.assert_array_equal(load_image(tmp_path / "x"), photo)


@pytest.mark.parametrize(
    "mode,format,slack", [("RGB", "JPEG", 3), ("CMYK", "JPEG", 4), ("P", "PNG", 25), ("P", "GIF", 25)]
)
def test_lossy_colour_comes_back_nearly(tmp_path, photo, mode, format, slack):
    (tmp_path / "x").write_bytes(encode(photo, format, mode))
    decoded = load_image(tmp_path / "x")
    assert decoded.shape == photo.shape and decoded.dtype == np.uint8
    assert np.abs(decoded.astype(int) - photo).mean() < slack


def test_grey_of_8_and_16_bits_becomes_three_equal_channels(tmp_path):
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    Image.fromarray(levels).save(tmp_path / "8.png")
    Image.fromarray(levels.astype(np.uint16) * 257).save(tmp_path / "16.png")
    Image.fromarray(levels.astype(np.uint16) * 257).save(tmp_path / "16.tif")
    for name in ("8.png", "16.png", "16.tif"):
        decoded = load_image(tmp_path / name)
        assert decoded.shape == (16, 16, 3) and decoded.dtype == np.uint8
        for channel in range(3):
            np.testing.assert_array_equal(decoded[:, :, channel], levels)


def test_sixteen_bit_colour_keeps_its_upper_eight_bits(tmp_path):
    rows = np.random.default_rng(3).integers(0, 65536, (5, 7, 3), dtype=np.uint16)
    pixels = b"".join(b"\0" + row.astype(">u2").tobytes() for row in rows)
    (tmp_path / "x.png").write_bytes(png(7, 5, 16, pixels))
    np.testing.assert_array_equal(load_image(tmp_path / "x.png"), rows >> 8)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied_as_pillow_defines_it_and_only_when_told(tmp_path, photo, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(photo).save(tmp_path / "x.png", exif=exif)
    with Image.open(tmp_path / "x.png") as picture:
        upright = np.asarray(ImageOps.exif_transpose(picture))
    np.testing.assert_array_equal(load_image(tmp_path / "x.png"), upright)
    np.testing.assert_array_equal(load_image(tmp_path / "x.png", exif_orientation=False), photo)


def test_damaged_exif_block_leaves_a_picture_as_it_lies_in_the_file(tmp_path, photo):
    (tmp_path / "x.jpg").write_bytes(encode(photo, dpi=(72, 72), exif=b"Exif\0\0garbage"))
    (tmp_path / "plain.jpg").write_bytes(encode(photo))
    np.testing.assert_array_equal(load_image(tmp_path / "x.jpg"), load_image(tmp_path / "plain.jpg"))
    assert declared_sizes(tmp_path / "x.jpg") == [(120, 90)]


def test_thumbnail_of_a_jpeg_is_decoded_smaller_but_no_smaller_than_wanted(tmp_path, photo):
    (tmp_path / "x.jpg").write_bytes(encode(np.tile(photo, (4, 4, 1))))
    assert load_image(tmp_path / "x.jpg").shape == (360, 480, 3)
    assert load_image(tmp_path / "x.jpg", longest=100).shape == (180, 240, 3)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF", "BMP"])
@pytest.mark.parametrize("kept", [0.02, 0.5, 0.95])
def test_truncated_file_is_an_error_that_names_it(tmp_path, photo, format, kept):
    data = encode(photo, format)
    path = tmp_path / "cut.jpg"
    path.write_bytes(data[: int(kept * len(data))])
    with pytest.raises(ImageError, match=r"cut\.jpg"):
        load_image(path)


@pytest.mark.parametrize(
    "content,message",
    [
        (b"", "empty"),
        (b"I am no picture\n" * 40, "not a picture"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not a picture"),
        (png(100_000, 100_000, 8, bytes(1000)), "178,956,970 pixels"),
        (np.random.default_rng(4).bytes(4096), "not a picture"),
    ],
)
def test_what_is_no_picture_is_an_error_that_says_so(tmp_path, content, message):
    path = tmp_path / "bad.jpg"
    path.write_bytes(content)
    with pytest.raises(ImageError, match=r"bad\.jpg: .*" + message):
        load_image(path)


def test_missing_file_and_folder_are_errors_that_name_them(tmp_path):
    with pytest.raises(ImageError, match=r"nowhere\.jpg: No such file"):
        load_image(tmp_path / "nowhere.jpg")
    (tmp_path / "folder.jpg").mkdir()
    with pytest.raises(ImageError, match=r"folder\.jpg"):
        load_image(tmp_path / "folder.jpg")


def test_only_what_lies_outside_a_picture_may_pass(tmp_path, photo):
    contents = {"cut.png": encode(photo, "PNG")[:500], "text.png": b"text", "empty.png": b"", "nowhere.png": None}
    passing = {}
    for name, content in contents.items():
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(ImageError) as caught:
            load_image(tmp_path / name)
        passing[name] = may_pass(str(caught.value))
    assert passing == {"cut.png": False, "text.png": False, "empty.png": False, "nowhere.png": True}


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow comments on damaged TIFF tags
def test_damaged_bytes_never_raise_anything_but_image_error(tmp_path, photo):
    rng = np.random.default_rng(5)
    for format in ("JPEG", "PNG", "TIFF", "GIF", "WEBP"):
        data = encode(photo[:30, :40], format)
        for _ in range(40):
            damaged = bytearray(data)
            for place in rng.integers(0, len(data), 5):
                damaged[place] = rng.integers(256)
            (tmp_path / "x").write_bytes(damaged)
            with contextlib.suppress(ImageError):
                assert load_image(tmp_path / "x").dtype == np.uint8


def test_a_query_may_be_left_whole_on_purpose(photo):
    whole, cropped = (
        to_tensors(photo, Preprocess(size_rule="none", size=None, crop=c), (5, 6, 20, 30)) for c in (0, 1)
    )
    assert whole[0].shape[1:] == photo.shape[:2] and cropped[0].shape[1:] == (24, 15)


# ---- what files declare, and what they are -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "mode,format", [("RGBA", "PNG"), ("LA", "PNG"), ("RGBA", "WEBP"), ("RGBA", "TIFF"), ("RGBA", "GIF")]
)
def test_what_is_transparent_shows_white(tmp_path, mode, format):
    drawing = np.zeros((20, 30, 4), np.uint8)
    drawing[5:10, 5:20, 3] = 255  # black ink
    picture = Image.fromarray(drawing).convert(mode)
    picture.save(tmp_path / "x", format, lossless=True)
    decoded = load_image(tmp_path / "x")
    assert (decoded[5:10, 5:20] == 0).all() and (decoded[:5] == 255).all() and (decoded[10:] == 255).all()


def test_half_transparent_ink_is_half_way_to_white(tmp_path):
    Image.fromarray(np.full((4, 4, 4), (100, 0, 200, 128), np.uint8)).save(tmp_path / "x.png")
    assert np.abs(load_image(tmp_path / "x.png").astype(int) - (177, 127, 227)).max() <= 1


LEVELS = np.linspace(0, 1, 600).reshape(20, 30)


@pytest.mark.parametrize("kind,declared,white", [(np.int32, {281: 255}, 255), (np.uint16, {281: 4095}, 4095),
                                                 (np.uint16, {341: 1023}, 1023), (np.uint16, {}, 65535)])  # fmt: skip
def test_grey_is_scaled_by_what_the_file_declares(tmp_path, kind, declared, white):
    Image.fromarray((LEVELS * white).astype(kind)).save(tmp_path / "x.tif", tiffinfo=declared)
    assert np.abs(load_image(tmp_path / "x.tif")[:, :, 0] - 255 * LEVELS).max() <= 1.5


def test_maxval_of_a_pgm_is_its_white(tmp_path):
    levels = (LEVELS * 4095).astype(">u2")
    (tmp_path / "x.pgm").write_bytes(b"P5 30 20 4095\n" + levels.tobytes())
    assert np.abs(load_image(tmp_path / "x.pgm")[:, :, 0] - 255 * LEVELS).max() <= 1.5


@pytest.mark.parametrize(
    "kind,white,declared,words",
    [
        (np.int32, 255, {}, "32 bits with values 0 to 255, no range declared"),
        (np.uint16, 4095, {}, "16 bits with values up to 4095 of 65535"),
        (np.uint16, 4095, {281: 255}, "values 0 to 4095 where 0 to 255 are declared"),
        (np.float32, 1, {}, "floating-point pixels"),
    ],
)
def test_grey_of_no_certain_scale_is_refused(tmp_path, kind, white, declared, words):
    Image.fromarray((LEVELS * white).astype(kind)).save(tmp_path / "x.tif", tiffinfo=declared)
    with pytest.raises(ImageError, match=rf"x\.tif: .*{words}"):
        load_image(tmp_path / "x.tif")


def test_twelve_bits_in_sixteen_of_colour_are_refused(tmp_path):
    rows = np.random.default_rng(3).integers(0, 4096, (5, 7, 3), dtype=np.uint16)
    (tmp_path / "x.png").write_bytes(png(7, 5, 16, b"".join(b"\0" + row.astype(">u2").tobytes() for row in rows)))
    with pytest.raises(ImageError, match="16 bits with values up to 3840"):
        load_image(tmp_path / "x.png")


PROFILE = b"icc\0\0" + zlib.compress(bytes(2 << 20))
CHUNKS = {"zTXt": (b"Comment\0\0" + zlib.compress(b"x" * (2 << 20)), True), "iCCP": (PROFILE, True),
          "tEXt": (b"Comment\0hello", False), "eXIf": (b"MM\0*", False)}  # fmt: skip


@pytest.mark.parametrize("kind", CHUNKS)
@pytest.mark.parametrize("place", ["before", "after"])
def test_a_whole_png_with_large_or_damaged_notes_is_read(tmp_path, photo, kind, place):
    body, intact = CHUNKS[kind]
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encode(photo, "PNG", exif=exif)
    at = 33 if place == "before" else len(data) - 12  # IEND has 12 bytes
    (tmp_path / "x.png").write_bytes(with_chunk(data, kind.encode(), body, intact=intact, at=at))
    np.testing.assert_array_equal(load_image(tmp_path / "x.png", exif_orientation=False), photo)
    if kind != "eXIf":
        assert load_image(tmp_path / "x.png").shape == (120, 90, 3)
    assert declared_sizes(tmp_path / "x.png")[0] == (120, 90)


def test_a_png_whose_pixels_are_damaged_is_none_whatever_notes_it_has(tmp_path, photo):
    data = bytearray(with_chunk(encode(photo, "PNG"), b"tEXt", b"Comment\0hello", intact=False))
    data[len(data) // 2] ^= 255
    (tmp_path / "x.png").write_bytes(data)
    with pytest.raises(ImageError, match=r"x\.png: truncated or damaged"):
        load_image(tmp_path / "x.png")


@pytest.mark.parametrize(
    "head,kind",
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC/HEIF"),
        (b"\0\0\0\x18ftypcrx \0\0\0\1", "a camera's raw data"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", r"a Git LFS pointer .*git lfs pull"),
        (b"<!DOCTYPE html><html>", "a web page"),
        (b"\xff\x0a\0\0", "JPEG XL"),
        (b"%PDF-1.4", "PDF"),
    ],
)
def test_a_file_of_another_kind_is_called_what_it_is(tmp_path, head, kind):
    (tmp_path / "x.jpg").write_bytes(head + bytes(200))
    with pytest.raises(ImageError, match=rf"x\.jpg: not a picture that is read here but {kind}"):
        load_image(tmp_path / "x.jpg")


@pytest.mark.parametrize("format", ["AVIF", "JPEG2000", "TGA", "DIB", "MPO"])
def test_rarer_kinds_are_read_too(tmp_path, photo, format):
    path = tmp_path / ("x.tga" if format == "TGA" else "x")
    Image.fromarray(photo).save(path, format)
    assert np.abs(load_image(path).astype(int) - photo).mean() < 4


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes")
def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "x.jpg")
    with pytest.raises(ImageError, match=r"x\.jpg: a folder, a pipe or a device"):
        load_image(tmp_path / "x.jpg")


def test_no_library_warns_of_a_file_that_it_does_not_name(tmp_path, photo, recwarn, capfd):
    for name, options in {"a.jpg": {"exif": b"Exif\0\0garbage"}, "b.tif": {}, "c.gif": {}}.items():
        Image.fromarray(photo).save(tmp_path / name, **options)
    data = (tmp_path / "b.tif").read_bytes()
    (tmp_path / "b.tif").write_bytes(data.replace(struct.pack("<HHI", 277, 3, 1), struct.pack("<HHI", 60000, 3, 1)))
    for path in tmp_path.iterdir():
        with contextlib.suppress(ImageError):
            load_image(path)
    assert not recwarn.list and capfd.readouterr().err == ""
