"""Benchmarks and training sets: their ground truth, their files, and what happens when drawing is disturbed."""

from __future__ import annotations

import json
import sys
from dataclasses import replace

import cv2
import filelock
import numpy as np
import pytest

from drawn_landmarks import SyntheticSpec, contact, draw_benchmark, draw_training, plan
from drawn_landmarks.families import HELD_OUT_FAMILIES
from drawn_landmarks.plan import Job
from drawn_landmarks.worker import Studio
from ssr_lib.benchmark import Benchmark
from ssr_lib.study import describe
from ssr_lib.study.profile import load_profile

QUIET = {"processes": 1, "progress": False}


def bytes_of(root):
    files = sorted(p for p in root.rglob("*") if p.is_file() and p.suffix in (".jpg", ".json"))
    return {str(p.relative_to(root)): p.read_bytes() for p in files}


def times_of(root):
    return {path: path.stat().st_mtime_ns for path in root.rglob("*")}  # of folders too: nothing came and went


# --- the benchmark -------------------------------------------------------------------------------------------------------


def test_the_same_building_in_another_style_is_junk_and_another_building_in_the_same_style_is_wrong(drawn):
    benchmark = drawn["ordinary"]
    assert set(drawn) == {"ordinary", "restyled", "grey", "night", "masked"}
    assert len(benchmark) == 2 and len(set(benchmark.groups)) == 2
    for q in range(len(benchmark)):
        extra = {key: set(lists[q]) for key, lists in benchmark.extra.items()}
        listed = np.concatenate([benchmark.easy[q], benchmark.hard[q], benchmark.junk[q]])
        mine = {i for i, name in enumerate(benchmark.database) if name.startswith(f"database/{q:05d}_v")}
        assert mine | extra["same_building"] == set(listed)
        assert extra["same_building"] <= set(benchmark.junk[q])
        assert not extra["same_style"] & set(listed)
        assert not extra["unrelated"] & (set(listed) | extra["same_style"])
        assert len(extra["same_style"]) == len(extra["same_building"]) == 1


def test_what_is_drawn_beside_a_landmark_shares_its_style_or_its_building_and_not_the_other(
    small, tmp_path, monkeypatch
):
    built = []
    monkeypatch.setattr(Studio, "build", lambda studio, job, structure, style, *more: built.append((structure, style)))
    monkeypatch.setattr(Studio, "_views", lambda *arguments: [])
    Studio(small, "benchmark", tmp_path).draw(Job("landmark", 0, views=2, same_style=1, same_building=1))
    (mine, style), (other, alike), (again, unlike) = built
    assert alike is style and other is not mine
    assert again is mine and unlike.family != style.family


@pytest.mark.parametrize(("task", "shown"), [("training ordinary 2", False), ("benchmark", True)])
def test_styles_of_held_out_families_are_drawn_in_no_training(task, shown, small, tmp_path):
    studio = Studio(replace(small, held_out_styles=True), task, tmp_path)
    families = {studio.style(Job("landmark", i, views=1)).family for i in range(80)}
    assert bool(families & set(HELD_OUT_FAMILIES)) == shown


def test_a_study_shows_held_out_styles_in_its_test_alone():
    splits = [describe.to_draw(load_profile("smoke").data, split) for split in ("training", "validation", "test")]
    assert [spec.held_out_styles for spec in splits] == [False, False, True]


def test_labels_are_those_of_the_records(drawn):
    benchmark = drawn["ordinary"]
    record = json.loads((benchmark.root / "records" / "landmark_00001.json").read_text())
    labels = {picture["file"]: picture["difficulty"] for picture in record["pictures"] if picture["role"] == "view"}
    for key in ("easy", "hard"):
        assert {benchmark.database[i] for i in getattr(benchmark, key)[1]} == {f for f in labels if labels[f] == key}


def test_the_forms_share_a_database_and_differ_in_query_pictures(drawn):
    pictures = {}
    for form, benchmark in drawn.items():
        assert list(benchmark.database) == list(drawn["ordinary"].database)
        assert all((benchmark.root / name).is_file() for name in (*benchmark.database, *benchmark.queries))
        pictures[form] = cv2.imread(str(benchmark.root / benchmark.queries[0]))
        assert pictures[form].shape == (96, 96, 3)
    for form in ("restyled", "grey", "night", "masked"):
        assert np.abs(pictures[form].astype(int) - pictures["ordinary"]).mean() > 2
    spread = pictures["grey"].max(2).astype(int) - pictures["grey"].min(2)
    assert spread.mean() < 2  # grey but for JPEG


def test_query_boxes_lie_in_the_picture(drawn):
    for x0, y0, x1, y1 in drawn["ordinary"].boxes:
        assert 0 <= x0 < x1 <= 96 and 0 <= y0 < y1 <= 96


def test_saved_benchmarks_load_as_they_were_returned(drawn):
    loaded = Benchmark.load(drawn["night"].root / "night.json")
    assert loaded.queries == drawn["night"].queries and loaded.boxes == drawn["night"].boxes
    for key in ("easy", "hard", "junk"):
        for stored, returned in zip(getattr(loaded, key), getattr(drawn["night"], key), strict=True):
            np.testing.assert_array_equal(stored, returned)


def test_views_for_each_landmark_are_log_uniform_between_the_limits():
    counts = plan.view_counts(SyntheticSpec("many", 0, landmarks=4000))
    assert counts.min() == 3 and counts.max() == 40
    assert np.mean(counts < 11) == pytest.approx(np.log(11 / 3) / np.log(41 / 3), abs=0.03)
    assert (plan.view_counts(SyntheticSpec("many", 0, fixed_views=6)) == 6).all()


def test_shares_hold_every_job_once_and_are_about_equal(small):
    jobs = plan.benchmark_jobs(replace(small, landmarks=40, distractors=50))
    shares = plan.shares(jobs, 3)
    assert sorted(map(str, jobs)) == sorted(str(job) for share in shares for job in share)
    sizes = [sum(job.pictures for job in share) for share in shares]
    assert max(sizes) < 1.1 * min(sizes)


def test_what_was_drawn_is_counted_by_role_and_difficulty(drawn):
    done = json.loads((drawn["ordinary"].root / "drawn.json").read_text())["pictures"]
    assert done["same_style"] == done["same_building"] == 2 and done["distractor"] == 5
    assert done["ordinary"] == done["grey"] == 2
    assert sum(n for key, n in done.items() if key.startswith("view ")) == done["view"]


# --- drawing on disk -----------------------------------------------------------------------------------------------------


def test_two_processes_draw_the_same_bytes_as_one(small, drawn, tmp_path):
    draw_benchmark(small, tmp_path, processes=2, progress=False)
    assert bytes_of(tmp_path) == bytes_of(drawn["ordinary"].root)
    assert len(bytes_of(tmp_path)) > 20


def test_a_stopped_draw_is_finished_and_damaged_files_are_drawn_again(small, tmp_path):
    draw_benchmark(small, tmp_path, **QUIET)
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
    draw_benchmark(small, tmp_path, **QUIET)
    assert bytes_of(tmp_path) == before
    assert not list(tmp_path.rglob("*.part"))


def test_a_finished_folder_is_recognised_and_nothing_is_written_twice(small, drawn, tmp_path, monkeypatch):
    root, spec = drawn["ordinary"].root, replace(small, landmarks=1)
    images = draw_training(spec, tmp_path, views=2, **QUIET)
    times = times_of(root), times_of(tmp_path)
    again = draw_benchmark(small, root, **QUIET)
    monkeypatch.chdir(root)  # a relative folder is the same folder
    draw_benchmark(small, ".", **QUIET)
    assert draw_training(spec, tmp_path, views=2, **QUIET).files == images.files
    assert (times_of(root), times_of(tmp_path)) == times
    assert again["night"].queries == drawn["night"].queries


def test_a_folder_with_another_spec_or_other_files_is_refused(small, drawn, tmp_path):
    with pytest.raises(ValueError, match="use another folder or delete this one"):
        draw_benchmark(replace(small, seed=6), drawn["ordinary"].root, progress=False)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"holds files but no spec\.json"):
        draw_benchmark(small, tmp_path, progress=False)
    (tmp_path / "spec.json").write_text("{")
    with pytest.raises(ValueError, match=r"spec\.json is damaged"):
        draw_benchmark(small, tmp_path, progress=False)


def test_two_runs_do_not_draw_into_one_folder(small, tmp_path):
    with (
        filelock.FileLock(tmp_path / ".lock"),
        pytest.raises(RuntimeError, match="another run is drawing here"),
    ):
        draw_benchmark(small, tmp_path, **QUIET)


def test_a_worker_that_fails_is_reported(small, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(RuntimeError, match="drawing process ended with status 1"):
        draw_benchmark(replace(small, landmarks=3), tmp_path, processes=2, progress=False)


# --- training and what is asked for --------------------------------------------------------------------------------------


@pytest.mark.parametrize("regime", ["ordinary", "restyled"])
def test_training_pictures_have_labels_and_share_no_landmark_with_the_benchmark(regime, small, tmp_path):
    images = draw_training(replace(small, landmarks=3), tmp_path, views=2, regime=regime, **QUIET)
    np.testing.assert_array_equal(images.labels, [0, 0, 1, 1, 2, 2])
    assert all((images.root / name).is_file() for name in images.files)
    assert plan.stream(small, f"training {regime} 2") != plan.stream(small, "benchmark")
    first = [cv2.imread(str(images.root / name)).astype(int) for name in images.files[:2]]
    assert np.abs(first[0] - first[1]).mean() > 5  # two views, not one twice


def test_an_unknown_regime_is_named():
    with pytest.raises(ValueError, match="'colourful'; 'ordinary' or 'restyled' is wanted"):
        draw_training(SyntheticSpec("unit", 5), "nowhere", regime="colourful")
    with pytest.raises(ValueError, match="views is 0; at least 1"):
        draw_training(SyntheticSpec("unit", 5), "nowhere", views=0)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"views": (5, 2)}, r"'bad': views is \(5, 2\); 1 <= smallest <= largest is wanted"),
        ({"views": (3,)}, r"views is \(3,\)"),
        ({"views": "ab"}, "views is 'ab'"),
        ({"landmarks": 0}, "landmarks is 0; a whole number >= 1 is wanted"),
        ({"landmarks": 2.5}, "landmarks is 2.5"),
        ({"same_style": -1}, "same_style is -1; a whole number >= 0"),
        ({"size": 16}, "size is 16; a whole number >= 32"),
        ({"fixed_views": 0}, "fixed_views is 0"),
    ],
)
def test_a_specification_that_cannot_be_drawn_is_refused(bad, message):
    with pytest.raises(ValueError, match=message):
        SyntheticSpec("bad", 0, **bad)


def test_the_pictures_of_the_data_card_show_every_kind(small, drawn, tmp_path):
    sheet = contact.benchmark_sheet(drawn["ordinary"], rows=2, side=40)
    assert sheet.dtype == np.uint8 and sheet.shape == (22 + 2 * 43 + 3, 6 * 43 + 3, 3)
    assert np.ptp(sheet[25:65, 3:43]) > 50  # the query's picture is there
    assert contact.form_sheet(drawn, rows=2, side=40).shape == (22 + 2 * 43 + 3, 5 * 43 + 3, 3)
    images = draw_training(replace(small, landmarks=2), tmp_path, views=3, **QUIET)
    assert contact.training_sheet(images, side=40).shape == (2 * 43 + 3, 3 * 43 + 3, 3)
