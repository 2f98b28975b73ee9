"""Pictures reduced as copies are, galleries on which choices are made, and differences of few landmarks."""

import numpy as np
import pytest
from PIL import Image

from ssr_lib.images import Preprocess, to_tensors
from ssr_lib.significance import paired_difference
from ssr_lib.study import tables
from ssr_lib.study.choose import folds, galleries
from ssr_lib.study.profile import load_profile

LABELS = np.repeat(np.arange(12), np.arange(1, 13) * 4)  # 12 landmarks of 4 to 48 pictures


@pytest.mark.parametrize("box", [None, (100, 40, 200, 100)])
def test_a_copy_and_a_crop_of_one_have_as_many_pixels_as_they_had_there(box):
    image = np.random.default_rng(0).integers(0, 256, (256, 512, 3), np.uint8)
    (found,) = to_tensors(image, Preprocess(size=128, enlarge=True, reduce=256, reduce_box="relative"), box)
    (expected,) = to_tensors(np.asarray(Image.fromarray(image).reduce(2, box)), Preprocess(size=128, enlarge=True))
    assert found.shape == expected.shape and abs(found - expected).max() < 0.03


def test_a_landmark_lies_whole_in_one_fold_and_galleries_mix_landmarks_of_few_and_of_many_right_pictures():
    few = {"positives": (1, 8), "distractors": 30, "asked": 2, "galleries": 30}
    how = load_profile("real").photographs.model_copy(update=few)
    counts, fold, made = [], folds(LABELS, how.folds), galleries(LABELS, how)
    assert all(len(set(fold[landmark == LABELS])) == 1 for landmark in range(12))
    assert sorted(np.bincount(folds(np.arange(12), 5))) == [2, 2, 2, 3, 3]
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
