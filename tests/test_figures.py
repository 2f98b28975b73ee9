"""Figures: every one is drawn, in full colour, with the same bytes twice, and its names can be read."""

import re

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

from ssr_lib.study import figures

NOISE = np.random.default_rng(0)
METHODS = ["none", "AQE", "αQE", "DBA", "αQE + DBA", "SuperGlobal", "GFR", "SIFT + RANSAC"]


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Six pictures of noise, landscape and upright."""
    folder = tmp_path_factory.mktemp("photos")
    for i in range(6):
        size = (60, 80, 3) if i % 2 else (80, 60, 3)
        Image.fromarray(NOISE.integers(0, 256, size, dtype=np.uint8)).save(folder / f"{i}.png")
    return sorted(folder.iterdir())


SWEEP = pd.DataFrame({"k": [1, 2, 5, 10] * 2, "difficulty": ["easy"] * 4 + ["hard"] * 4, "mAP": range(50, 58)})
COSTS = pd.DataFrame({"re-ranking": METHODS, "online ms a query": [0.1] * 7 + [2000]})
COSTS["mAP"] = [50, 52, 52.1, 52.2, 55, 55.1, 58, 51]
LANDSCAPE = pd.DataFrame({"roxf_M": [60.0, 70.0, 70.0, None], "rpar_M": [70.0, 80.0, 80.5, 90.0]})
LANDSCAPE = LANDSCAPE.assign(rerank=["none", "αQE", "αQE", None], method=["A", "B", "C", "D"])
MEASURED = pd.DataFrame({"roxf_M": [70.0], "rpar_M": [80.1], "method": ["GFR"]})
CURVE = pd.DataFrame({"step": range(1, 20), "loss": 1 / np.arange(1.0, 20), "accuracy": np.arange(19) / 20})
BARS = pd.DataFrame([(b, h, 50.0, 48.0, 53.0) for b in ("lite0", "lite1") for h in ("plain", "product")])
BARS.columns = ["backbone", "head", "value", "low", "high"]
FOREST = pd.DataFrame([("a − b", 0.5, -1.0, 2.0), ("c − d", -2.0, -3.0, -1.0)])
FOREST.columns = ["comparison", "difference", "low", "high"]
GAINS = pd.DataFrame({"positives": [1, 2, 9, 30], "gain": [-5.0, 1.0, 4.0, 12.0]})
LINE_ART = {
    "lines": lambda path: figures.lines(SWEEP, "k", path, hue="difficulty", log="xy"),
    "heatmap": lambda path: figures.heatmap(pd.DataFrame([[50.0, 51.0], [52.0, np.nan]]), path),
    "learning_curves": lambda path: figures.learning_curves({"plain": [CURVE, CURVE]}, path, one_pass=7.5),
    "cost": lambda path: figures.cost(COSTS, path),
    "bars": lambda path: figures.bars(BARS, path, x="backbone", hue="head"),
    "forest": lambda path: figures.forest(FOREST, path),
    "gain_by_positives": lambda path: figures.gain_by_positives(GAINS, path),
    "published_landscape": lambda path: figures.published_landscape(LANDSCAPE, path, measured=MEASURED),
    "nothing measured": lambda path: figures.published_landscape(LANDSCAPE, path, measured=MEASURED[:0]),
}


@pytest.mark.parametrize("name", LINE_ART)
def test_line_art_is_a_png_in_full_colour_and_an_svg_with_the_same_bytes_every_time(name, tmp_path):
    before = dict(matplotlib.rcParams)
    first, second = (LINE_ART[name](tmp_path / folder / "x.png") for folder in "ab")
    assert first == tmp_path / "a" / "x.png" and Image.open(first).mode in ("RGB", "RGBA")
    for suffix in (".png", ".svg"):
        assert first.with_suffix(suffix).read_bytes() == second.with_suffix(suffix).read_bytes()
    assert not re.search(rb"20\d\d-\d\d-\d\d|dc:date", first.with_suffix(".svg").read_bytes())
    assert not Image.open(first).info.keys() & {"Software", "Creation Time"}
    assert dict(matplotlib.rcParams) == before, "drawing leaves no trace"


@pytest.mark.parametrize("name", ["cost", "published_landscape"])
def test_names_of_points_do_not_overlap(name, tmp_path, monkeypatch):
    drawn = matplotlib.figure.Figure(layout="constrained", figsize=(8.5, 5.2))
    monkeypatch.setattr(figures, "Figure", lambda **options: drawn)
    LINE_ART[name](tmp_path / "x.png")
    FigureCanvasAgg(drawn).draw()
    names = [text for text in drawn.axes[0].texts if text.get_text()]
    boxes = [matplotlib.text.Text.get_window_extent(text) for text in names]  # without the lines to the points
    assert [text.get_text() for text in names].count("GFR") == 1 and len(boxes) >= 3
    assert not [(i, j) for i in range(len(boxes)) for j in range(i) if boxes[i].overlaps(boxes[j])]


def test_one_method_has_one_colour_and_no_two_methods_share_it():
    networks = ["untrained", "structural", "plain", "neighbour", "conv"]
    for together in (METHODS, ["none", "easy", "medium", "hard"], networks):
        assert len({figures.COLOURS[name] for name in together}) == len(together), together


def test_ranked_lists_frame_right_images_green_wrong_ones_red_and_ignored_ones_grey(photos, tmp_path):
    def coloured(statuses):
        path = figures.ranked_lists(photos[0], [("plain, AP 34", photos[1:], None, statuses)], tmp_path / "r.png")
        pixels = np.asarray(Image.open(path).convert("RGB")).reshape(-1, 3).astype(int)
        frames = {name: matplotlib.colors.to_rgb(colour) for name, (colour, _) in figures.FRAMES.items() if colour}
        return {n: int((np.abs(pixels - 255 * np.array(rgb)).max(axis=1) < 12).sum()) for n, rgb in frames.items()}

    mixed, right = coloured(["right", "wrong", "ignored", "unknown", "right"]), coloured(["right"] * 5)
    unknown = coloured(["unknown"] * 5)
    assert right["right"] > 2 * mixed["right"] > 500 > 2 * unknown["right"]
    assert mixed["wrong"] > right["wrong"] + 100 and mixed["ignored"] > right["ignored"] + 100
    with pytest.raises(ValueError, match=r"status 'good' of .*1\.png; wanted one of right, wrong, ignored"):
        coloured(["good"] * 5)


def test_the_self_similarity_panel_marks_places_where_they_are(tmp_path):
    image, maps = np.full((200, 400, 3), (220, 0, 0), np.uint8), np.zeros((10, 20, 5, 5), np.float32)

    def marker(place):  # centre of the white disc in the red picture, as shares of its height and width
        path = figures.self_similarity_panel([image], [maps], [place], tmp_path / "a.png", ["red"])
        pixels = np.asarray(Image.open(path).convert("RGB")).astype(int)
        places = np.where((pixels[..., 0] > 200) & (pixels[..., 1] < 60))
        inside = pixels[places[0].min() : places[0].max() + 1, places[1].min() : places[1].max() + 1, 1] > 200
        return np.argwhere(inside).mean(axis=0) / inside.shape

    assert marker((2, 4)) == pytest.approx([0.25, 0.225], abs=0.06)  # (2 + 0.5) / 10, (4 + 0.5) / 20
    assert marker((7, 15)) == pytest.approx([0.75, 0.775], abs=0.06)
