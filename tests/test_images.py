"""Each preset gives the tensors of the program it stands for."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from ssr_lib.decode import ImageError
from ssr_lib.images import PRESETS, Preprocess, crop, to_tensors
from ssr_lib.train import TrainConfig

GOLDEN = np.load(Path(__file__).parent / "golden" / "image.npz")
RGB = GOLDEN["image_bgr_u8"][:, :, ::-1]
PHOTO = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)


@pytest.mark.parametrize("preset", ["senet", "cvnet"])
def test_senet_and_cvnet_load_exactly_as_the_reference_at_every_scale(preset):
    for what, box in {"db": None, "query": GOLDEN["bbx"]}.items():
        for i, tensor in enumerate(to_tensors(RGB, PRESETS[preset], box)):
            np.testing.assert_allclose(tensor, GOLDEN[f"{what}_scale{i}"], atol=1e-6, strict=True)


def test_superglobal_resizes_the_normalised_tensor_with_antialias():
    down, same, up = to_tensors(RGB, PRESETS["superglobal"])
    np.testing.assert_allclose(down, GOLDEN["sg_resize_0.7071"][0], atol=1e-5)
    np.testing.assert_allclose(same, GOLDEN["db_scale1"], atol=1e-6)
    np.testing.assert_allclose(up, GOLDEN["sg_resize_1.4142"][0], atol=1e-5)


@pytest.mark.parametrize("shape", [(1100, 801), (333, 1400), (700, 800)])
def test_cirtorch_shrinks_by_lanczos_then_scales_the_tensor_and_bicubic_is_pillow_s(shape):
    image = np.random.default_rng(1).integers(0, 256, (*shape, 3), dtype=np.uint8)
    box = (10.6, 20.2, shape[1] - 30.5, shape[0] - 40.9)
    cropped = Image.fromarray(image).crop(tuple(round(v) for v in box))
    longest = 1024 * max(cropped.size) / max(shape)
    if longest < max(cropped.size):
        cropped.thumbnail((longest, longest), Image.Resampling.LANCZOS, reducing_gap=None)
    expected = (np.asarray(cropped) / 255 - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)
    expected = torch.from_numpy(expected).float().permute(2, 0, 1)
    for tensor, scale in zip(to_tensors(image, PRESETS["cirtorch"], box), (1.0, 2**0.5, 2**-0.5), strict=True):
        scaled = F.interpolate(expected[None], scale_factor=scale, mode="bilinear", align_corners=False)
        torch.testing.assert_close(tensor, scaled[0], atol=1e-5, rtol=1e-5)
    (tensor,) = to_tensors(PHOTO, Preprocess(size=60, interpolation_down="bicubic"))
    expected = np.asarray(Image.fromarray(PHOTO).resize((60, 45), Image.Resampling.BICUBIC))
    assert np.array_equal(((tensor.permute(1, 2, 0) + 1) * 127.5).round(), expected)


@pytest.mark.parametrize("options,box,expected", [
    ({"size": 60}, None, [(45, 60)]), ({"size": 240}, None, [(90, 120)]),
    ({"size": 60, "scales": (0.5, 1, 2)}, None, [(22, 30), (45, 60), (90, 120)]),
    ({"size_rule": "fixed", "size": 64}, None, [(64, 64)]), ({"size": 240, "enlarge": True}, None, [(180, 240)]),
    ({"size": 60}, (0, 0, 60, 90), [(60, 40)]), ({"size": 60, "box_size": "relative"}, (0, 0, 60, 90), [(45, 30)]),
    ({"size": 60, "crop": False}, (0, 0, 60, 90), [(45, 60)]), ({"size": 30}, (0, 0, 120, 1), [(1, 30)]),
    ({"reduce": 60, "size_rule": "none", "size": None}, (0, 0, 60, 90), [(60, 40)]),
    ({"reduce": 60, "size": 40, "box_size": "relative"}, None, [(30, 40)]),
    ({"reduce": 60, "reduce_box": "relative", "size": 40, "box_size": "relative"}, (0, 0, 60, 90), [(30, 20)]),
])  # fmt: skip
def test_sizes_follow_the_rule(options, box, expected):
    assert [tuple(tensor.shape[1:]) for tensor in to_tensors(PHOTO, Preprocess(**options), box)] == expected


def test_box_is_truncated_or_rounded_and_may_end_a_pixel_outside_but_not_be_of_another_picture():
    assert (crop(PHOTO, (10.7, 5.2, 100.9, 80.6)) == PHOTO[5:80, 10:100]).all()
    assert (crop(PHOTO, (10.7, 5.2, 100.9, 80.6), "round") == PHOTO[5:81, 11:101]).all()
    assert crop(PHOTO, (0, -1, 121, 91)).shape == PHOTO.shape
    for box in (0, 0, 130, 90), (-5, 0, 50, 50), (10.2, 10, 10.9, 50), (200, 200, 300, 300):
        with pytest.raises(ImageError, match=r"120 x 90 px"):
            crop(PHOTO, box)


@pytest.mark.parametrize("record,wrong", [
    *((Preprocess, wrong) for wrong in ({"color_order": "rbg"}, {"size_rule": "none"}, {"interpolation_up": "lanczos"},
      {"size": -5}, {"scales": ()}, {"std": (0, 0, 0)}, {"mean": 3 * (np.nan,)}, {"reduce": 0}, {"crop": "no"},
      {"join": "max", "normalize_scales": False})),
    *((TrainConfig, wrong) for wrong in ({"steps": 2.5}, {"lr_new": np.nan}, {"warmup": 2}, {"clip": 0}, {"seed": -1})),
])  # fmt: skip
def test_illegal_value_is_refused_by_field_name(record, wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        record(**wrong)
