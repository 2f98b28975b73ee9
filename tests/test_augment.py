"""Random training views: inside the picture, of the stated sizes, the same from the same generator."""

import numpy as np
import pytest
import torch

from recipes.gldv2.augment import EIGENVECTORS, random_box, random_light, random_view
from ssr_lib.images import PRESETS, Preprocess

PREPROCESS = Preprocess(size_rule="none", size=None)


@pytest.mark.parametrize(("height", "width"), [(300, 400), (1, 1), (3, 500), (64, 64)])
def test_boxes_lie_in_the_picture(height, width):
    rng = np.random.default_rng(0)
    for _ in range(200):
        x0, y0, x1, y1 = random_box(height, width, rng)
        assert 0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height


def test_boxes_have_the_stated_areas_and_aspects():
    rng = np.random.default_rng(0)
    boxes = np.array([random_box(400, 400, rng) for _ in range(2000)])
    width, height = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    share, aspect = width * height / 400**2, width / height
    assert 0.075 < share.min() < 0.1 and share.max() > 0.95
    assert 0.73 < aspect.min() < 0.77 and 1.3 < aspect.max() < 1.36
    assert boxes[:, 0].min() == 0 and boxes[:, 2].max() == 400, "the borders are reached"


def test_a_picture_too_narrow_for_any_draw_gives_its_middle_square():
    assert random_box(10, 1000, np.random.default_rng(0)) == (495, 0, 505, 10)


def test_a_view_is_repeated_by_its_generator_and_mirrored_half_of_the_time():
    image = np.zeros((64, 64, 3), np.uint8)
    image[:, 32:] = 255  # bright on the right
    first, second = (random_view(image, 16, PREPROCESS, np.random.default_rng(4)) for _ in range(2))
    assert torch.equal(first, second) and first.shape == (3, 16, 16) and first.dtype == torch.float32
    views = [random_view(image, 16, PREPROCESS, np.random.default_rng(i)) for i in range(300)]
    across = [view for view in views if (view.amax() - view.amin()) > 1.5]
    mirrored = np.mean([bool(view[0, 0, 0] > view[0, 0, -1]) for view in across])
    assert len(across) > 150 and 0.4 < mirrored < 0.6


def test_light_shifts_colours_by_the_stated_deviation():
    rng = np.random.default_rng(0)
    shifts = np.array([random_light(rng) for _ in range(4000)])
    axes = np.linalg.svd(shifts - shifts.mean(0), full_matrices=False)[2]
    assert abs(axes[0] @ EIGENVECTORS[:, 0]) == pytest.approx(1.0, abs=1e-2)
    assert (shifts @ EIGENVECTORS[:, 0]).std() == pytest.approx(0.1 * 0.2175, rel=0.05)


def test_blue_first_views_are_red_first_views_turned_round():
    image = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    bgr = PRESETS["cvnet"]
    rgb = Preprocess(size_rule="none", size=None, mean=bgr.mean[::-1], std=bgr.std[::-1])
    views = [random_view(image, 24, preprocess, np.random.default_rng(1)) for preprocess in (bgr, rgb)]
    torch.testing.assert_close(views[0], views[1].flip(0), rtol=1e-5, atol=1e-5)
