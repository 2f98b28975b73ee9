"""The embedded benchmark: what a picture shows, and what stays the same when something else changes."""

from __future__ import annotations

import json
import sys
from dataclasses import replace

import cv2
import numpy as np
import pytest

from drawn_landmarks import (
    LabelledImages,
    SyntheticSpec,
    contact_sheet,
    draw_benchmark,
    draw_training,
    plan,
    variant_sheet,
)
from drawn_landmarks import spec as constants
from drawn_landmarks.building import build
from drawn_landmarks.camera import Camera
from drawn_landmarks.families import HELD_OUT_FAMILIES
from drawn_landmarks.scene import difficulty, draw_view, measure
from drawn_landmarks.structures import draw_structure
from drawn_landmarks.styles import draw_style
from drawn_landmarks.surroundings import Neighbourhood
from ssr_lib.benchmark import Benchmark

SMALL = SyntheticSpec("unit", 5, landmarks=2, size=96, views=(2, 4), twins=1, doubles=1, distractors=5)


@pytest.fixture(scope="module")
def town():
    return Neighbourhood.draw((1,))


@pytest.fixture(scope="module")
def landmark():
    rng = np.random.default_rng(4)
    structure, style = draw_structure(rng), draw_style(rng)
    return structure, build(structure, style, rng)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    root = tmp_path_factory.mktemp("drawn")
    return draw_benchmark(SMALL, root, processes=1, progress=False)


def bytes_of(root):
    files = sorted(p for p in root.rglob("*") if p.is_file() and p.suffix in (".jpg", ".json"))
    return {str(p.relative_to(root)): p.read_bytes() for p in files}


# --- camera ------------------------------------------------------------------------------------------------------------


def test_a_camera_sees_its_target_in_the_middle_and_what_is_right_of_it_on_the_right():
    camera = Camera.look_at((0, 2, 10), (0, 2, 0), focal=100, size=200)
    pixels = camera.project(np.array([(0, 2, 0), (1, 2, 0), (0, 3, 0)], float))
    np.testing.assert_allclose(pixels, [(100, 100), (110, 100), (100, 90)], atol=1e-9)  # focal * metre / distance = 10


def test_a_polygon_that_reaches_behind_the_camera_is_cut_not_mirrored():
    camera = Camera.look_at((0, 2, 10), (0, 2, 0), focal=100, size=200)
    ground = np.array([(-1, 0, 20), (1, 0, 20), (1, 0, 0), (-1, 0, 0)], float)
    pixels = camera.project(ground)
    assert len(pixels) >= 3
    assert pixels[:, 1].min() == pytest.approx(120)  # its far edge: two metres below the axis, ten away
    assert (pixels[:, 1] >= 119).all()  # all of it below the horizon
    assert len(camera.project(ground + np.array([0, 0, 30]))) == 0  # wholly behind


# --- what a view shows ---------------------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_picture_and_another_seed_another(town, landmark):
    first, again, other = (draw_view((3, s), *landmark, town, 96).image for s in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first.astype(int) - other).mean() > 5


def test_a_picture_does_not_depend_on_what_was_drawn_before_it(town, landmark):
    alone = draw_view((3, 7), *landmark, Neighbourhood.draw((1,)), 96).image
    draw_view((3, 8), *landmark, town, 96)
    np.testing.assert_array_equal(draw_view((3, 7), *landmark, town, 96).image, alone)


def test_reskinning_keeps_the_camera_and_night_keeps_the_place(town, landmark):
    structure, blocks = landmark
    rng = np.random.default_rng(9)
    reskinned = build(structure, draw_style(rng), rng)
    day, skin, night = (
        draw_view((3, 2), structure, b, town, 96, query=True, light_kind=kind)
        for b, kind in ((blocks, "cloud"), (reskinned, "cloud"), (blocks, "night"))
    )
    np.testing.assert_allclose(night.box, day.box)  # exactly the same building, seen from the same place
    overlap = np.minimum(day.box[2:], skin.box[2:]) - np.maximum(day.box[:2], skin.box[:2])
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
    ("seen", "scale", "occluded", "expected"),
    [
        (1.0, 0.5, 0.0, "easy"),
        (1.0, 0.5, constants.EASY_OCCLUDED + 0.01, "hard"),
        (constants.EASY_SEEN - 0.01, 0.5, 0.0, "hard"),
        (1.0, constants.EASY_SCALE - 0.01, 0.0, "hard"),
        (constants.JUNK_SEEN - 0.01, 0.5, 0.0, "junk"),
        (1.0, constants.JUNK_SCALE - 0.01, 0.0, "junk"),
    ],
)
def test_difficulty_follows_from_what_was_measured(seen, scale, occluded, expected):
    view = measure(np.zeros((8, 8, 3), np.uint8), np.zeros((8, 8), np.uint8), 1.0, 1.0, 90)
    assert difficulty(replace(view, seen=seen, scale=scale, occluded=occluded)) == expected


def test_an_occluder_lowers_what_is_seen(town, landmark, monkeypatch):
    structure, blocks = landmark
    monkeypatch.setattr(constants, "TREES", 0.0)
    free = draw_view((3, 5), structure, blocks, town, 96)
    monkeypatch.setattr(constants, "TREES", 25.0)
    behind = draw_view((3, 5), structure, blocks, town, 96)
    assert behind.occluded > free.occluded + 0.1
    assert behind.seen < free.seen


def test_training_styles_are_never_of_held_out_families():
    families = {draw_style(np.random.default_rng(i)).family for i in range(200)}
    assert not families & set(HELD_OUT_FAMILIES)
    tested = {draw_style(np.random.default_rng(i), held_out=True).family for i in range(200)}
    assert tested >= set(HELD_OUT_FAMILIES)


# --- the benchmark -------------------------------------------------------------------------------------------------------


def test_ground_truth_is_consistent_and_doubles_are_junk_while_twins_are_wrong(drawn):
    benchmark = drawn["ordinary"]
    assert set(drawn) == {"ordinary", "reskinned", "grey", "night", "masked"}
    assert len(benchmark) == 2 and len(set(benchmark.groups)) == 2
    for q in range(len(benchmark)):
        listed = np.concatenate([benchmark.easy[q], benchmark.hard[q], benchmark.junk[q]])
        mine = [i for i, name in enumerate(benchmark.database) if name.startswith(f"database/{q:05d}_v")]
        assert set(mine) | set(benchmark.extra["doubles"][q]) == set(listed)
        assert set(benchmark.extra["doubles"][q]) <= set(benchmark.junk[q])
        assert not set(benchmark.extra["twins"][q]) & set(listed)
        assert not set(benchmark.extra["unrelated"][q]) & (set(listed) | set(benchmark.extra["twins"][q]))
        assert len(benchmark.extra["twins"][q]) == len(benchmark.extra["doubles"][q]) == 1


def test_the_variants_share_a_database_and_differ_in_query_pictures(drawn):
    pictures = {}
    for variant, benchmark in drawn.items():
        assert list(benchmark.database) == list(drawn["ordinary"].database)
        assert all((benchmark.root / name).is_file() for name in (*benchmark.database, *benchmark.queries))
        pictures[variant] = cv2.imread(str(benchmark.root / benchmark.queries[0]))
        assert pictures[variant].shape == (96, 96, 3)
    for variant in ("reskinned", "grey", "night", "masked"):
        assert np.abs(pictures[variant].astype(int) - pictures["ordinary"]).mean() > 2
    spread = pictures["grey"].max(2).astype(int) - pictures["grey"].min(2)
    assert spread.mean() < 2  # grey but for JPEG


def test_query_boxes_lie_in_the_picture(drawn):
    for x0, y0, x1, y1 in drawn["ordinary"].boxes:
        assert 0 <= x0 < x1 <= 96 and 0 <= y0 < y1 <= 96


def test_saved_benchmarks_load_as_they_were_returned(drawn):
    loaded = Benchmark.load(drawn["night"].root / "night.json")
    assert loaded.queries == drawn["night"].queries and loaded.boxes == drawn["night"].boxes
    for key in ("easy", "hard", "junk"):
        for ours, theirs in zip(getattr(loaded, key), getattr(drawn["night"], key), strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_views_for_each_landmark_are_log_uniform_between_the_limits():
    counts = plan.view_counts(SyntheticSpec("many", 0, landmarks=4000))
    assert counts.min() == 3 and counts.max() == 40
    assert np.mean(counts < 11) == pytest.approx(np.log(11 / 3) / np.log(41 / 3), abs=0.03)
    assert (plan.view_counts(SyntheticSpec("many", 0, fixed_views=6)) == 6).all()


# --- drawing on disk -----------------------------------------------------------------------------------------------------


def test_two_processes_draw_the_same_bytes_as_one(drawn, tmp_path):
    draw_benchmark(SMALL, tmp_path, processes=2, progress=False)
    ours, theirs = bytes_of(tmp_path), bytes_of(drawn["ordinary"].root)
    assert ours == theirs and len(ours) > 20


def test_a_stopped_draw_is_finished_and_damaged_files_are_drawn_again(drawn, tmp_path):
    draw_benchmark(SMALL, tmp_path, processes=1, progress=False)
    before = bytes_of(tmp_path)
    pictures = sorted(tmp_path.rglob("*.jpg"))
    pictures[0].write_bytes(b"damaged")
    pictures[-1].unlink()
    (tmp_path / "records" / "landmark_00001.json").write_text("{")
    (tmp_path / "drawn.json").unlink()
    (tmp_path / "night.json").write_text('{"format": "ssr-benchmark-1", "root": "."}')
    (tmp_path / "grey.json").unlink()
    masked = (tmp_path / "masked.json").read_text()
    (tmp_path / "masked.json").write_text(masked.replace("database/00000_v00.jpg", "database/another.jpg"))
    draw_benchmark(SMALL, tmp_path, processes=1, progress=False)
    assert bytes_of(tmp_path) == before
    assert not list(tmp_path.rglob("*.part"))


def times_of(root):
    return {path: path.stat().st_mtime_ns for path in root.rglob("*")}  # of folders too: nothing came and went


def test_a_finished_directory_is_recognised_and_nothing_is_written_twice(drawn, tmp_path, monkeypatch):
    root = drawn["ordinary"].root
    spec, options = replace(SMALL, landmarks=1), {"views": 2, "processes": 1, "progress": False}
    images = draw_training(spec, tmp_path, **options)
    times = times_of(root), times_of(tmp_path)
    again = draw_benchmark(SMALL, root, processes=1, progress=False)
    monkeypatch.chdir(root)  # a relative folder is the same folder
    draw_benchmark(SMALL, ".", processes=1, progress=False)
    assert draw_training(spec, tmp_path, **options).files == images.files
    assert (times_of(root), times_of(tmp_path)) == times
    assert again["night"].queries == drawn["night"].queries


def test_another_spec_in_the_same_directory_is_refused(drawn):
    with pytest.raises(ValueError, match="use another directory or delete this one"):
        draw_benchmark(replace(SMALL, seed=6), drawn["ordinary"].root, progress=False)


def test_a_directory_with_other_files_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"holds files but no spec\.json"):
        draw_benchmark(SMALL, tmp_path, progress=False)


def test_a_worker_that_fails_is_reported(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(RuntimeError, match="drawing process ended with status"):
        draw_benchmark(replace(SMALL, landmarks=3), tmp_path, processes=2, progress=False)


# --- training ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("regime", ["ordinary", "reskinned"])
def test_training_pictures_have_labels_and_share_no_landmark_with_the_benchmark(regime, drawn, tmp_path):
    images = draw_training(replace(SMALL, landmarks=3), tmp_path, views=2, regime=regime, processes=1, progress=False)
    np.testing.assert_array_equal(images.labels, [0, 0, 1, 1, 2, 2])
    assert all((images.root / name).is_file() for name in images.files)
    training, testing = (plan.stream(SMALL, task) for task in (f"training {regime} 2", "benchmark"))
    assert training != testing
    first = [cv2.imread(str(images.root / name)).astype(int) for name in images.files[:2]]
    assert np.abs(first[0] - first[1]).mean() > 5  # two views, not one twice


def test_unknown_regime_and_bad_specs_are_named():
    with pytest.raises(ValueError, match="'ordinary' or 'reskinned'"):
        draw_training(SMALL, "nowhere", regime="colourful")
    with pytest.raises(ValueError, match="views is \\(5, 2\\)"):
        SyntheticSpec("bad", 0, views=(5, 2))
    with pytest.raises(ValueError, match="landmarks is 0"):
        SyntheticSpec("bad", 0, landmarks=0)
    with pytest.raises(ValueError, match="3 files but 2 labels"):
        LabelledImages(".", ["a", "b", "c"], [0, 1])


def test_a_contact_sheet_shows_a_picture_of_every_kind(drawn, tmp_path):
    sheet = contact_sheet(drawn["ordinary"], rows=2, side=40)
    assert sheet.dtype == np.uint8 and sheet.shape == (22 + 2 * 43 + 3, 6 * 43 + 3, 3)
    assert np.ptp(sheet[25:65, 3:43]) > 50  # the query's picture is there
    assert variant_sheet(drawn, rows=2, side=40).shape == (22 + 2 * 43 + 3, 5 * 43 + 3, 3)
    images = draw_training(replace(SMALL, landmarks=2), tmp_path, views=3, processes=1, progress=False)
    assert contact_sheet(images, rows=2, columns=3, side=40).shape == (2 * 43 + 3, 3 * 43 + 3, 3)


def test_what_was_drawn_is_counted_by_role_and_difficulty(drawn):
    done = json.loads((drawn["ordinary"].root / "drawn.json").read_text())["pictures"]
    assert done["twin"] == done["double"] == 2 and done["distractor"] == 5
    assert done["ordinary"] == done["grey"] == 2
    assert sum(n for key, n in done.items() if key.startswith("view ")) == done["view"]
