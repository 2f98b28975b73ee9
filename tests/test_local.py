"""Re-ranking by SIFT and RANSAC: geometry finds the same thing; ties keep their order; features are stored."""

import os

import cv2
import numpy as np
import pytest

from ssr_lib.decode import ImageError
from ssr_lib.local import sift
from ssr_lib.local.sift import count_inliers, extract_features
from ssr_lib.rerank import Ranking, sift_ransac


def scene(seed, size=240):
    rng, image = np.random.default_rng(seed), np.full((size, size, 3), 128, np.uint8)
    for _ in range(60):
        x, y, w, h = rng.integers([0, 0, 10, 10], [size, size, 60, 60])
        cv2.rectangle(image, (int(x), int(y)), (int(x + w), int(y + h)), rng.integers(0, 256, 3).tolist(), -1)
    return image


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Database: two other scenes, a blank, and scene 0 seen from elsewhere, last; the query is scene 0."""
    folder, corners = tmp_path_factory.mktemp("pictures"), np.float32([[0, 0], [240, 0], [240, 240], [0, 240]])
    view = cv2.getPerspectiveTransform(corners, np.float32([[20, 10], [225, 30], [215, 220], [5, 230]]))
    pictures = {f"scene{i}.png": scene(i) for i in range(3)}
    pictures["blank.png"] = np.full((240, 240, 3), 90, np.uint8)
    pictures["view.png"] = cv2.warpPerspective(scene(0), view, (240, 240))
    for name, picture in pictures.items():
        cv2.imwrite(str(folder / name), picture)
    return folder / "scene0.png", [folder / name for name in ("scene1.png", "scene2.png", "blank.png", "view.png")]


def local_rerank(query, database, ids, shortlist, **options):
    return sift_ransac.rerank([query], database, Ranking(np.array([ids]), None), shortlist=shortlist, **options)


def test_the_other_view_of_the_scene_comes_first_and_ties_keep_their_order(files):
    got = local_rerank(*files, [2, 0, 1, 3], None)
    assert got.ranks[0, 0] == 3 and got.scores[0, 0] >= 20 > 2 * got.scores[0, 1]
    inliers = dict(zip(got.ranks[0].tolist(), got.scores[0].tolist(), strict=True))
    assert inliers[2] == 0, "a blank picture has no features"
    assert got.ranks[0].tolist() == sorted([2, 0, 1, 3], key=lambda i: -inliers[i])  # stable
    own = Ranking(np.arange(4)[None], np.array([[0.9, 0.8, 0.7, -np.inf]]))
    assert sift_ransac.rerank(files[:1], files[1], own).ranks[0, -1] == 3, "the own image, whatever it matches"
    features = [extract_features(file) for file in files[1]]
    assert got.cost["bytes_per_image"] == np.mean([len(points) * (2 * 4 + 128) for points, _ in features])


def test_what_is_behind_the_shortlist_is_not_looked_at(files, tmp_path):
    query, database = files
    (tmp_path / "broken.png").write_bytes(b"no picture")
    database = [*database[:2], tmp_path / "broken.png", database[3]]
    got = local_rerank(query, database, [0, 3, 1, 2], 2)
    assert got.ranks.tolist() == [[3, 0, 1, 2]] and got.scores[0, 2:].tolist() == [-1, -1]
    with pytest.raises(ValueError, match=r"broken\.png"):
        local_rerank(query, database, [0, 3, 1, 2], 4)
    with pytest.raises(ValueError, match="there are 4 files"):
        local_rerank(query, database, [0, 1, 2, 4], 2)


def test_pairs_that_an_earlier_call_matched_are_not_matched_again(files, monkeypatch):
    known, matched = {}, []
    first = local_rerank(*files, [0, 3, 1, 2], 2, known=known)
    assert set(known) == {(0, 0), (0, 3)}
    monkeypatch.setattr(sift_ransac, "count_inliers", lambda *a, **k: matched.append(1) or count_inliers(*a, **k))
    again = local_rerank(*files, [3, 0, 1, 2], 3, known=known)
    assert len(matched) == 1 and set(known) == {(0, 0), (0, 3), (0, 1)}
    assert set(again.scores[0, :3].tolist()) >= set(first.scores[0, :2].tolist())


def test_stored_features_are_used_again_only_for_the_same_picture_and_settings(files, tmp_path, monkeypatch):
    picture, cache = tmp_path / "picture.bmp", tmp_path / "cache"
    found = []
    for content in (scene(0), scene(1)):  # of one size in bytes
        cv2.imwrite(str(picture), content)
        os.utime(picture, (1, 1))
        found.append(local_rerank(files[0], [picture], [0], 1, cache=cache))
    assert found[0].scores[0, 0] > 2 * found[1].scores[0, 0]
    few = local_rerank(files[0], [picture], [0], 1, cache=cache, count=30)
    assert few.scores[0, 0] <= 40 and len(list(cache.iterdir())) == 5
    with monkeypatch.context() as patch:
        patch.setattr(sift, "extract_features", lambda *a, **k: pytest.fail("extracted again"))
        again = local_rerank(files[0], [picture], [0], 1, cache=cache)
    assert np.array_equal(again.scores, found[1].scores)
    assert again.cost["seconds_per_image"] == pytest.approx(found[1].cost["seconds_per_image"])
    for path in cache.iterdir():
        path.write_bytes(b"no archive")
    with pytest.warns(UserWarning, match=r"\.npz is damaged .*looked at again"):
        again = local_rerank(files[0], [picture], [0], 1, cache=cache)
    assert np.array_equal(again.scores, found[1].scores)


def test_a_box_keeps_what_is_outside_from_matching(files, tmp_path):
    boxes = [None], [(0, 0, 150, 150)], [np.array([0, 0, 150, 150])]
    scores = [local_rerank(*files, [3], 1, boxes=box, cache=tmp_path).scores[0, 0] for box in boxes]
    assert 4 <= scores[1] < 0.7 * scores[0] and scores[1] == scores[2]


def test_a_picture_that_cannot_be_used_and_a_wrong_box_are_named(files, tmp_path):
    cv2.imwrite(str(tmp_path / "line.png"), scene(0, 3000)[:1])
    with pytest.raises(ImageError, match=r"^\S*line\.png: of 3000 x 1 px none is left at 512 px a side"):
        local_rerank(files[0], [tmp_path / "line.png"], [0], 1)
    with pytest.raises(ImageError, match=r"^\S*scene0\.png: box .* does not lie in a picture of 240 x 240 px"):
        local_rerank(*files, [3], 1, boxes=[(500, 500, 600, 600)])
