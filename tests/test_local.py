"""local_rerank: geometry finds the picture of the same thing; ties keep their order; features are stored once."""

import csv

import cv2
import numpy as np
import pytest

from ssr_lib.images import ImageError
from ssr_lib.local import sift as local_features
from ssr_lib.local.sift import count_inliers, extract_features
from ssr_lib.rerank import local_rerank


def scene(seed, size=240):
    """A picture full of corners: random rectangles."""
    rng = np.random.default_rng(seed)
    image = np.full((size, size, 3), 128, np.uint8)
    for _ in range(60):
        x, y, w, h = rng.integers([0, 0, 10, 10], [size, size, 60, 60])
        cv2.rectangle(image, (int(x), int(y)), (int(x + w), int(y + h)), rng.integers(0, 256, 3).tolist(), -1)
    return image


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Database: three scenes, a blank, and scene 0 seen from elsewhere, last; the query is scene 0."""
    folder = tmp_path_factory.mktemp("pictures")
    view = cv2.getPerspectiveTransform(
        np.float32([[0, 0], [240, 0], [240, 240], [0, 240]]), np.float32([[20, 10], [225, 30], [215, 220], [5, 230]])
    )
    pictures = {f"scene{i}.png": scene(i) for i in range(3)}
    pictures |= {
        "blank.png": np.full((240, 240, 3), 90, np.uint8),
        "view.png": cv2.warpPerspective(scene(0), view, (240, 240)),
    }
    for name, picture in pictures.items():
        cv2.imwrite(str(folder / name), picture)
    return folder / "scene0.png", [folder / name for name in ("scene1.png", "scene2.png", "blank.png", "view.png")]


def test_the_other_view_of_the_scene_comes_first_and_ties_keep_their_order(files):
    query, database = files
    got = local_rerank([query], database, np.array([[2, 0, 1, 3]]), 4)
    assert got.ranks[0, 0] == 3 and got.scores[0, 0] >= 20 > 2 * got.scores[0, 1]
    inliers = dict(zip(got.ranks[0].tolist(), got.scores[0].tolist(), strict=True))
    assert inliers[2] == 0  # a blank picture has no features
    expected = sorted([2, 0, 1, 3], key=lambda i: -inliers[i])  # stable
    assert got.ranks[0].tolist() == expected


def test_what_is_behind_the_shortlist_is_not_looked_at(files, tmp_path):
    query, database = files
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    ranks = np.array([[0, 3, 1, 2]])
    got = local_rerank([query], [*database[:2], broken, database[3]], ranks, 2)
    assert got.ranks.tolist() == [[3, 0, 1, 2]] and got.scores[0, 2:].tolist() == [-1, -1]
    assert ranks.tolist() == [[0, 3, 1, 2]]  # the argument is left alone
    with pytest.raises(ValueError, match=r"broken\.png"):
        local_rerank([query], [*database[:2], broken, database[3]], ranks, 4)


def test_pairs_that_an_earlier_call_matched_are_not_matched_again(files, monkeypatch):
    query, database = files
    known = {}
    first = local_rerank([query], database, np.array([[0, 3, 1, 2]]), 2, known=known)
    assert set(known) == {(0, 0), (0, 3)}
    matched = []
    monkeypatch.setattr(
        "ssr_lib.rerank.sift_ransac.count_inliers", lambda *a, **k: matched.append(1) or count_inliers(*a, **k)
    )
    again = local_rerank([query], database, np.array([[3, 0, 1, 2]]), 3, known=known)
    assert len(matched) == 1 and set(known) == {(0, 0), (0, 3), (0, 1)}
    assert set(again.scores[0, :3].tolist()) >= set(first.scores[0, :2].tolist())


def test_stored_features_give_the_same_result_without_extracting(files, tmp_path, monkeypatch):
    query, database = files
    first = local_rerank([query], database, np.array([[0, 1, 2, 3]]), 4, cache=tmp_path)
    assert len(list(tmp_path.iterdir())) == 5
    monkeypatch.setattr(local_features, "extract_features", lambda *a, **k: pytest.fail("extracted again"))
    again = local_rerank([query], database, np.array([[0, 1, 2, 3]]), 4, cache=tmp_path)
    assert np.array_equal(first.scores, again.scores)
    assert {k: again.cost[k] for k in ("seconds_per_image", "bytes_per_image")} == pytest.approx(
        {k: first.cost[k] for k in ("seconds_per_image", "bytes_per_image")}
    )


def test_damaged_stored_features_are_named_and_made_again(files, tmp_path):
    query, database = files
    first = local_rerank([query], database, np.array([[3]]), 1, cache=tmp_path)
    for damage in (b"", b"no archive"):
        for path in tmp_path.iterdir():
            path.write_bytes(damage)
        with pytest.warns(UserWarning, match=r"\.npz is damaged .*looked at again"):
            again = local_rerank([query], database, np.array([[3]]), 1, cache=tmp_path)
        assert np.array_equal(first.scores, again.scores)


def test_boxes_may_be_arrays(files):
    query, database = files
    boxes = [np.array([0, 0, 40, 40])]
    arrays, tuples = (local_rerank([query], database, np.array([[3]]), 1, boxes=b) for b in (boxes, [(0, 0, 40, 40)]))
    assert np.array_equal(arrays.scores, tuples.scores)


def test_other_settings_do_not_use_stored_features(files, tmp_path):
    query, database = files
    local_rerank([query], database, np.array([[3]]), 1, cache=tmp_path)
    few = local_rerank([query], database, np.array([[3]]), 1, cache=tmp_path, count=30)
    assert few.scores[0, 0] <= 40 and len(list(tmp_path.iterdir())) == 4


def test_the_cost_counts_the_bytes_of_the_features(files):
    query, database = files
    got = local_rerank([query], database, np.array([[3]]), 1)
    points, descriptors = extract_features(database[3])
    assert got.cost["bytes_per_image"] == len(points) * (2 * 4 + 128) and descriptors.dtype == np.uint8
    assert got.cost["seconds_per_query"] > 0 and got.cost["seconds_per_image"] > 0


def test_a_box_keeps_what_is_outside_from_matching(files):
    query, database = files
    whole, corner = (
        local_rerank([query], database, np.array([[3]]), 1, boxes=boxes).scores[0, 0]
        for boxes in (None, [(0, 0, 150, 150)])
    )
    assert 4 <= corner < 0.7 * whole


def test_a_picture_matches_itself_and_nothing_matches_a_blank(files):
    query, database = files
    features, blank = extract_features(query), extract_features(database[2])
    assert count_inliers(features, features) > 0.9 * len(features[0])
    assert count_inliers(features, blank) == count_inliers(blank, features) == 0


def test_a_large_picture_is_shrunk_before_extraction(tmp_path):
    cv2.imwrite(str(tmp_path / "large.png"), cv2.resize(scene(0), (1000, 500)))
    assert extract_features(tmp_path / "large.png", longest=200)[0].max() < 200


def test_a_picture_that_cannot_be_used_and_a_wrong_box_are_named(files, tmp_path):
    query, database = files
    cv2.imwrite(str(tmp_path / "line.png"), scene(0, 3000)[:1])
    with pytest.raises(ImageError, match=r"^\S*line\.png: of 3000 x 1 px none is left at 512 px a side"):
        local_rerank([query], [tmp_path / "line.png"], np.array([[0]]), 1)
    with pytest.raises(
        ImageError, match=r"^\S*scene0\.png: box \(500\.0, .* does not lie in a picture of 240 x 240 px"
    ):
        local_rerank([query], database, np.array([[3]]), 1, boxes=[(500, 500, 600, 600)])


@pytest.mark.parametrize(
    ("ranks", "shortlist", "message"),
    [
        (np.array([[0, 1, 2, 4]]), 2, "there are 4 files"),
        (np.array([[0, 1], [1, 0]]), 2, "1 rows"),
        (np.array([[0.0, 1.0]]), 2, "ranks are float64"),
        (np.array([[0, 1]]), 3, "shortlist is 3"),
    ],
)
def test_rankings_that_do_not_fit_are_refused(files, ranks, shortlist, message):
    with pytest.raises(ValueError, match=message):
        local_rerank([files[0]], files[1], ranks, shortlist)


def test_real_photographs_of_one_place_match(extra_data):
    holidays = extra_data / "photos" / "holidays"
    with open(holidays / "labels.csv") as file:
        rows = list(csv.DictReader(file))[:12]
    files = [holidays / "images" / row["file"] for row in rows]
    ranks = np.array([np.roll(np.arange(12), -i)[1:] for i in range(4)])
    got = local_rerank(files[:4], files, ranks, 11)
    right = [any(rows[i]["label"] == rows[j]["label"] for j in ranks[i]) for i in range(4)]
    first = [rows[i]["label"] == rows[got.ranks[i, 0]]["label"] for i in range(4)]
    assert sum(first) >= max(1, sum(right) // 2)
