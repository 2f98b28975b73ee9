"""Re-rankers that look at pairs of pictures, against loops and hand-computed cases, and taught on drawn maps."""

import sys

import numpy as np
import pytest
import torch
from PIL import Image

from ssr_lib.local import LocalFeatures, lightglue, matching
from ssr_lib.rerank import Ranking, _shortlist, correlation, first_ranking, local_ransac, reranking_transformer
from ssr_lib.store import Maps

RNG = np.random.default_rng(0)


def pictures(landmarks, views=4, side=6):
    maps, labels, things = [], np.repeat(np.arange(landmarks), views), RNG.normal(size=(landmarks, side, side, 16))
    for moved in (np.roll(things[i], RNG.integers(-1, 2, 2), (0, 1)) for i in labels):
        seen = np.where(RNG.random((side, side, 1)) < 0.5, moved, RNG.normal(size=moved.shape))
        maps.append(seen[len(maps) % 2 :].astype(np.float16))
    return Maps(maps, None, "drawn", {}), labels, RNG.normal(size=(len(labels), 8)).astype(np.float32)


MAPS, LABELS, X = pictures(30)  # half of the places show what the landmark has there; X says nothing
OTHERS, THEIRS, Y = pictures(8)
FIRST = first_ranking(Y, Y, np.arange(len(Y)))


def test_matches_are_nearest_to_each_other_and_inliers_agree_with_one_map():
    x, y = (RNG.normal(size=(n, 5)).astype(np.float32) for n in (30, 20))
    cosines = x @ y.T
    found = [[i, j] for i, j in np.ndindex(30, 20) if cosines[i, j] == max(1, *cosines[i], *cosines[:, j])]
    assert 0 < len(found) < 20 and matching.mutual_nearest(x, y, 1.0).tolist() == found
    here = 100 * RNG.random((40, 2))
    there = here @ [[0.8, 0.3], [-0.2, 1.1]] + [5, -7]
    there[::4] += RNG.choice([-60, 60], (10, 2)) * (1 + RNG.random((10, 2)))
    for model in [*matching.FEWEST] * 3:  # nothing is drawn anew
        assert np.array_equal(matching.explained(here, there, model, 2.0), np.arange(40) % 4 != 0)


def test_inliers_put_a_shortlist_in_order_and_ties_stay():
    points, rows = 16 * np.argwhere(np.ones((4, 4))).astype(np.float32), np.eye(16, 17, dtype=np.float32)
    seen = [LocalFeatures(points[:n], rows[:n].copy(), np.ones(n)) for n in (16, 0, 5, 9, 9, 2)]
    seen[3].descriptors[:] = 0.6 * rows[:9] + 0.8 * (np.arange(17) == 16)
    queries = Maps([rows.reshape(4, 4, 17), np.zeros((4, 4, 17))], None, "two", {})
    first = Ranking([[1, 2, 5, 4, 3, 0], range(6)], np.array([[0.9, 0.8, 0.7, 0.6, 0.5, -np.inf]] * 2))
    of = {"features": "d2", "prepared": seen, "error": 1.0}
    found = local_ransac.rerank(queries, MAPS, first, **of)
    assert found.ranks.tolist() == [[4, 3, 2, 1, 5, 0], [0, 1, 2, 3, 4, 5]] and found.scores[0, -1] == -np.inf
    assert found.scores[0, :5].tolist() == [9, 9, 5, 0, 0] and not found.scores[1, :5].any()
    assert local_ransac.rerank(queries, MAPS, first, weighted=True, **of).scores[0, :2] == pytest.approx([9, 5.4])
    short = local_ransac.rerank(queries, MAPS, first, shortlist=2, **of)
    assert short.ranks[0].tolist() == [2, 1, 5, 4, 3, 0] and short.scores[0].tolist() == [5, 0, *first.scores[0][2:]]
    with pytest.raises(ValueError, match="there are 1 queries and 6 images"):
        local_ransac.rerank(queries.take([0]), MAPS, first, **of)


def test_convolution_in_four_dimensions_is_its_sum():
    layer, c = correlation.Convolution(2, 3).double(), torch.randn(1, 2, 4, 3, 5, 4, dtype=torch.float64)
    expected = layer.query.bias.clone()
    for a, b in np.ndindex(3, 3):
        expected += layer.query.weight[:, :, a, b] @ c[0, :, a, b, 2, 3]
        if b < 2:  # outside there is 0
            expected += layer.image.weight[:, :, a, b] @ c[0, :, 1, 1, 1 + a, 2 + b]
    torch.testing.assert_close(layer(c)[0, :, 1, 1, 2, 3], expected)


def test_pairs_to_train_on_are_of_both_kinds_and_from_the_shortlist_where_it_has_them():
    x = np.eye(5, dtype=np.float32) + np.eye(5, k=1, dtype=np.float32)
    drawn = [(*ids, same) for *ids, same in _shortlist.training_pairs(x, [*"aabbc"], 40, 3, 2, seed=0)]
    for is_right, pairs in {1: {(0, 1), (1, 0), (2, 3), (3, 2)}, 0: {(0, 2), (1, 2), (2, 1), (3, 4)}}.items():
        assert {(i, j) for i, j, same in np.hstack(drawn).T if same == is_right} == pairs


@pytest.mark.parametrize("part, how, told", [
    (correlation, {"side": 6, "width": 16}, {"weight": 1000.0}),
    (reranking_transformer, {"features": "d2", "batch": 8}, {"descriptors": (Y, Y)}),
])  # fmt: skip
def test_what_training_landmarks_teach_tells_others_apart_and_moves_every_parameter(part, how, told):
    start, again, learned = (part.fit(MAPS, LABELS, X, **how | {"steps": n}) for n in (0, 60, 60))
    for before, after, same in zip(*(model.parameters() for model in (start, learned, again)), strict=True):
        assert not torch.equal(before, after) and torch.equal(after, same)
    found = part.rerank(OTHERS, OTHERS, FIRST, learned=learned, **told)
    right = THEIRS[found.ranks] == THEIRS[:, None]
    assert (found.scores[right][:, None] > found.scores[~right]).mean() > 0.8, "0.5 is chance"
    short = part.rerank(OTHERS, OTHERS, FIRST, learned=learned, shortlist=1, **told).scores[:, 0]
    assert short == pytest.approx(found.scores[found.ranks == FIRST.ids[:, :1]], abs=1e-2), "whatever it stands with"


def test_without_kornia_lightglue_says_what_to_install_and_with_it_describes_pictures(monkeypatch, tmp_path):
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "kornia", None)
        with pytest.raises(ValueError, match=r"^kornia is missing .* `pip install 'ssr-lib\[local\]'` brings it$"):
            lightglue.Matcher("disk", weights="none")
    pytest.importorskip("kornia", reason="the extra [local] is not installed")
    Image.fromarray(RNG.integers(0, 255, (90, 70, 3), np.uint8)).save(tmp_path / "a.png")
    for matcher in (lightglue.Matcher(kind, count=20, weights="none") for kind in ("aliked", "disk")):
        with pytest.raises(ValueError, match=r"a\.png: box .* does not lie in a picture of 70 x 90 px"):
            matcher.extract(tmp_path / "a.png", (500, 500, 600, 600))
        seen, size = matcher.extract(tmp_path / "a.png")
        assert seen.descriptors.shape == (20, 128) and matcher.count_inliers((seen, size), (seen, size)) <= 20
