"""The labelled subsets of the real benchmarks, pictures of exactly one size, and galleries on which choices are made."""

import pickle

import numpy as np
import pytest
from PIL import Image

from ssr_lib.benchmark import Benchmark
from ssr_lib.datasets.revisited import one_landmark, read_ground_truth, read_names
from ssr_lib.images import Preprocess, to_tensors
from ssr_lib.significance import paired_difference
from ssr_lib.study import provenance, tables
from ssr_lib.study.choose import folds, galleries
from ssr_lib.study.profile import load_profile

LISTS = {name: provenance.repository_root() / "data" / f"{name}_labelled.txt" for name in ("roxford5k", "rparis6k")}


@pytest.mark.parametrize("name,queries,database,right", [("roxford5k", 70, 775, 735), ("rparis6k", 12, 267, None)])
def test_the_labelled_subset_is_the_official_ground_truth_restricted_to_its_names(
    extra_data, name, queries, database, right
):
    official, names = extra_data / "gnd" / f"gnd_{name}.pkl", read_names(LISTS[name])
    benchmark = read_ground_truth(official, names=names)
    assert (len(benchmark), len(benchmark.database)) == (queries, database)
    cut = extra_data / "photos" / f"{name[:-2]}_subset" / f"gnd_{name[:-2]}_subset.pkl"
    expected = read_ground_truth(cut, subset=True)
    for i, query in enumerate(benchmark.queries):
        j = expected.queries.index(query)
        for key in ("easy", "hard", "junk"):
            found, wanted = getattr(benchmark, key)[i], getattr(expected, key)[j]
            assert {benchmark.database[k] for k in found} == {expected.database[k] for k in wanted}
    if right is not None:
        assert len(np.unique(np.concatenate(benchmark.positives))) == right


def cut_down(folder, size):
    """A ground truth of two queries, their files at a size, and a list that names one of them with its database."""
    truth = [
        {"easy": [0, 2], "hard": [1], "junk": [3], "bbx": [10, 0, 90, 60]},
        {"easy": [3], "hard": [], "junk": [], "bbx": None},
    ]
    record = {"imlist": ["a", "b", "c", "d"], "qimlist": ["q", "r"], "gnd": truth}
    (folder / "gnd_cut.pkl").write_bytes(pickle.dumps(record))
    (folder / "list.txt").write_text("# queries\nq 100  # px\n\n# database\na\nc\nd\n")
    for name in "qacd":
        Image.new("RGB", size).save(folder / f"{name}.jpg")
    return folder / "gnd_cut.pkl"


@pytest.mark.parametrize("size,box", [((100, 80), (10, 0, 90, 60)), ((50, 40), (5, 0, 45, 30))])
def test_names_not_listed_leave_every_list_and_boxes_are_scaled_to_copies(tmp_path, size, box):
    path = cut_down(tmp_path, size)
    benchmark = read_ground_truth(path, tmp_path, subset=True, names=read_names(tmp_path / "list.txt"))
    assert (benchmark.queries, benchmark.database) == (["q.jpg"], ["a.jpg", "c.jpg", "d.jpg"])
    assert [getattr(benchmark, key)[0].tolist() for key in ("easy", "hard", "junk")] == [[0, 1], [], [2]]
    assert benchmark.boxes == [box]


def test_pictures_that_show_two_landmarks_teach_no_whitening():
    none = [[], [], []]
    benchmark = Benchmark(
        "b", ".", list("abcd"), list("qrs"), [[0, 1], [1], [3]], [[], [], []], none, groups=list("xyx")
    )
    ids, landmarks = one_landmark(benchmark)
    assert (ids.tolist(), landmarks) == ([0, 3], ["x", "x"])


@pytest.mark.parametrize("height,width,box", [(60, 90, None), (300, 200, None), (300, 200, (10, 20, 70, 50))])
def test_every_picture_and_crop_is_brought_to_the_long_side(height, width, box):
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    (tensor,) = to_tensors(image, Preprocess(size=128, enlarge=True), box)
    assert max(tensor.shape) == 128


def test_a_crop_of_a_copy_has_as_many_pixels_as_it_had_there():
    image = np.random.default_rng(0).integers(0, 256, (256, 512, 3), np.uint8)
    box, copy = (100, 40, 200, 100), Preprocess(size=128, enlarge=True, reduce=256, reduce_box="relative")
    (found,) = to_tensors(image, copy, box)
    small = Image.fromarray(image[40:100, 100:200]).resize((50, 30), Image.Resampling.BOX)
    (expected,) = to_tensors(np.asarray(small), Preprocess(size=128, enlarge=True))
    assert found.shape == expected.shape and abs(found - expected).max() < 0.03


def test_a_reduced_picture_has_lost_what_the_smaller_one_cannot_hold():
    image = np.random.default_rng(0).integers(0, 256, (200, 100, 3), np.uint8)
    (plain,) = to_tensors(image, Preprocess(size=128, enlarge=True))
    (reduced,) = to_tensors(image, Preprocess(size=128, enlarge=True, reduce=32))
    assert reduced.shape == plain.shape and reduced.std() < 0.5 * plain.std()
    small = image[:30, :16]
    assert (to_tensors(small, Preprocess(reduce=32))[0] == to_tensors(small, Preprocess())[0]).all()


LABELS = np.repeat(np.arange(12), np.arange(1, 13) * 4)  # 12 landmarks of 4 to 48 pictures


def test_a_landmark_lies_whole_in_one_fold():
    found = folds(LABELS, 5)
    assert all(len(set(found[landmark == LABELS])) == 1 for landmark in range(12))
    assert sorted(np.bincount(found[np.unique(LABELS, return_index=True)[1]])) == [2, 2, 2, 3, 3]


def test_galleries_mix_landmarks_of_few_and_of_many_right_pictures():
    how = load_profile("real").photographs
    how = how.model_copy(update={"positives": (1, 8), "distractors": 30, "asked": 2, "galleries": 30})
    counts, fold, made = [], folds(LABELS, how.folds), galleries(LABELS, how)
    for number, queries, database, benchmark in made:
        own, distractors = database[:-30], database[-30:]
        assert distractors.tolist() == [*range(len(LABELS), len(LABELS) + 30)] and set(queries).isdisjoint(own)
        assert len(set(own)) == len(own) and set(fold[queries]) | set(fold[own]) == {number}
        for query, right in zip(queries, benchmark.easy, strict=True):
            assert set(right) == set(np.flatnonzero(LABELS[own] == LABELS[query])), "all right pictures are listed"
        counts += [len(right) for right in benchmark.easy[::2]]
    share = np.bincount(counts, minlength=9)[1:] / len(counts)
    assert share[0] > share[3] > share[7] > 0, "evenly on a logarithmic scale: few right pictures are more frequent"
    assert (made[7][1] == galleries(LABELS, how)[7][1]).all()
    with pytest.raises(ValueError, match="no training landmark of fold 0 has two pictures"):
        galleries(np.arange(5), how)


def test_a_difference_of_one_landmark_has_no_ends():
    first, second = np.array([[0.5, np.nan, 0.7]]), np.array([[0.4, 0.1, 0.4]])
    row = tables.difference("a − b", first, second, ["x", "y", "x"])
    assert row == {"comparison": "a − b", "difference": pytest.approx(20), "queries": 2, "landmarks": 1}
    found, row = paired_difference(first, second, list("xyz")), tables.difference("a − b", first, second, list("xyz"))
    assert (row["low"], row["high"]) == pytest.approx((100 * found.ci_low, 100 * found.ci_high))
