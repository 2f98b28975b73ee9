"""What a picture shows, and what stays the same when something else changes."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import cv2
import numpy as np
import pytest

from drawn_landmarks import spec as constants
from drawn_landmarks.building import build
from drawn_landmarks.camera import Camera
from drawn_landmarks.families import HELD_OUT_FAMILIES
from drawn_landmarks.scene import difficulty, draw_view, good_query, measure
from drawn_landmarks.structures import DOOR, draw_structure
from drawn_landmarks.styles import draw_style
from drawn_landmarks.surroundings import Neighbourhood

CAMERA = Camera.look_at((0, 2, 10), (0, 2, 0), focal=100, size=200)


def test_a_camera_sees_its_target_in_the_middle_and_what_is_right_of_it_on_the_right():
    pixels = CAMERA.project(np.array([(0, 2, 0), (1, 2, 0), (0, 3, 0)], float))
    np.testing.assert_allclose(pixels, [(100, 100), (110, 100), (100, 90)], atol=1e-9)  # focal * metre / distance = 10


def test_a_polygon_that_reaches_behind_the_camera_is_cut_not_mirrored():
    ground = np.array([(-1, 0, 20), (1, 0, 20), (1, 0, 0), (-1, 0, 0)], float)
    pixels = CAMERA.project(ground)
    assert len(pixels) >= 3
    assert pixels[:, 1].min() == pytest.approx(120)  # its far edge: two metres below the axis, ten away
    assert (pixels[:, 1] >= 119).all()  # all of it below the horizon
    assert len(CAMERA.project(ground + np.array([0, 0, 30]))) == 0  # wholly behind


@pytest.mark.parametrize("name", ["day", "restyled", "night", "street"])
def test_pictures_of_this_version_are_still_drawn_as_they_were(name, town, landmark, golden):
    """Against thumbnails stored when version 3 was made: rounding may differ by machine, the picture may not."""
    structure, blocks = landmark
    how = {"query": name != "street"}
    if name == "restyled":
        blocks = build(structure, draw_style(np.random.default_rng(9)), np.random.default_rng(9))
    if name == "night":
        how["light_kind"] = "night"
    image = draw_view((3, 2), structure, [] if name == "street" else blocks, town, 96, **how).image
    thumbnail = cv2.resize(image, (24, 24), interpolation=cv2.INTER_AREA)
    assert int(golden["version"]) == constants.VERSION
    assert np.abs(thumbnail.astype(int) - golden[name]).mean() < 0.5


def test_the_same_seed_gives_the_same_picture_and_another_seed_another(town, landmark):
    first, again, other = (draw_view((3, s), *landmark, town, 96).image for s in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first.astype(int) - other).mean() > 5


def test_a_picture_does_not_depend_on_what_was_drawn_before_it(town, landmark):
    alone = draw_view((3, 7), *landmark, Neighbourhood.draw((1,)), 96).image
    draw_view((3, 8), *landmark, town, 96)
    np.testing.assert_array_equal(draw_view((3, 7), *landmark, town, 96).image, alone)


def test_restyling_keeps_the_camera_and_night_keeps_the_place(town, landmark):
    structure, blocks = landmark
    rng = np.random.default_rng(9)
    restyled = build(structure, draw_style(rng), rng)
    day, other, night = (
        draw_view((3, 2), structure, b, town, 96, query=True, light_kind=kind)
        for b, kind in ((blocks, "cloud"), (restyled, "cloud"), (blocks, "night"))
    )
    np.testing.assert_allclose(night.box, day.box)  # exactly the same building, seen from the same place
    overlap = np.minimum(day.box[2:], other.box[2:]) - np.maximum(day.box[:2], other.box[:2])
    assert overlap.prod() > 0.7 * np.subtract(day.box[2:], day.box[:2]).prod()  # roofs may differ
    assert night.image.mean() < 0.7 * day.image.mean()
    assert night.image.max() > 60  # night still shows something


def test_without_the_building_nothing_of_it_is_left_and_the_rest_stays(town, landmark):
    structure, blocks = landmark
    full = draw_view((3, 2), structure, blocks, town, 96, query=True)
    empty = draw_view((3, 2), structure, [], town, 96, query=True)
    assert full.scale > 0.1 and empty.scale == 0 and empty.box is None
    assert difficulty(empty) == "junk"
    sky = np.abs(full.image[:8].astype(int) - empty.image[:8]).mean()
    assert sky < 12  # the same clouds above


def test_measures_are_counts_of_pixels():
    mask = np.zeros((100, 100), np.uint8)
    mask[20:60, 10:30] = 255  # 800 pixels
    view = measure(np.zeros((50, 50, 3), np.uint8), mask, whole=1600.0, inside=1000.0, quality=90)
    assert (view.seen, view.scale, view.occluded) == pytest.approx((0.5, 0.08, 0.2))
    assert view.box == (5.0, 10.0, 15.0, 30.0)  # in pixels of the image, half as large as the mask


@pytest.mark.parametrize(
    ("seen", "scale", "occluded", "expected", "query"),
    [
        (1.0, 0.5, 0.0, "easy", True),
        (1.0, 0.5, constants.EASY_OCCLUDED + 0.01, "hard", True),
        (1.0, 0.5, constants.QUERY_OCCLUDED + 0.01, "hard", False),
        (constants.EASY_SEEN - 0.01, 0.5, 0.0, "hard", False),
        (1.0, constants.EASY_SCALE - 0.01, 0.0, "hard", False),
        (constants.JUNK_SEEN - 0.01, 0.5, 0.0, "junk", False),
        (1.0, constants.JUNK_SCALE - 0.01, 0.0, "junk", False),
    ],
)
def test_difficulty_and_fitness_for_a_query_follow_from_what_was_measured(seen, scale, occluded, expected, query):
    view = measure(np.zeros((8, 8, 3), np.uint8), np.zeros((8, 8), np.uint8), 1.0, 1.0, 90)
    view = replace(view, seen=seen, scale=scale, occluded=occluded)
    assert (difficulty(view), good_query(view)) == (expected, query)


def test_an_occluder_lowers_what_is_seen(town, landmark, monkeypatch):
    monkeypatch.setattr(constants, "TREES", 0.0)
    free = draw_view((3, 5), *landmark, town, 96)
    monkeypatch.setattr(constants, "TREES", 25.0)
    behind = draw_view((3, 5), *landmark, town, 96)
    assert behind.occluded > free.occluded + 0.1
    assert behind.seen < free.seen


def test_training_styles_are_never_of_held_out_families():
    families = {draw_style(np.random.default_rng(i)).family for i in range(200)}
    assert not families & set(HELD_OUT_FAMILIES)
    tested = {draw_style(np.random.default_rng(i), held_out=True).family for i in range(200)}
    assert tested >= set(HELD_OUT_FAMILIES)


def test_a_style_unlike_another_is_of_another_family_and_structures_have_a_door():
    for seed in range(50):
        rng = np.random.default_rng(seed)
        style = draw_style(rng)
        assert draw_style(rng, unlike=style).family != style.family
        masses = draw_structure(rng).masses
        assert any(DOOR in mass.cells[0] for mass in masses)
        assert all(a.right == pytest.approx(b.left) for a, b in pairwise(masses))
