"""Decoding never lies about a file, and each preset gives the tensors of the program it stands for."""

import contextlib
import io
import json
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps

from ssr_lib.images import PRESETS, ImageError, Preprocess, crop, declared_sizes, load_image, may_pass, to_tensors

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


def png(width, height, bits, pixels):
    """A PNG of RGB rows as they stand in the file, whatever size its header declares."""
    chunk = lambda kind, data: struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    header = struct.pack(">IIBBBBB", width, height, bits, 2, 0, 0, 0)
    data = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + data


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
