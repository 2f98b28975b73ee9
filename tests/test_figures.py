"""Figures: every one is drawn, in full colour, with the same bytes twice, and its names can be read."""

import re
from functools import partial

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

from ssr_lib.study import figures

SWEEP = {"k": [1, 2, 5, 10] * 2, "network": ["product, late"] * 4 + ["product"] * 4, "mAP": np.arange(50.0, 58)}
FOREST = pd.DataFrame({"difference": [0.5, -2, 0.1], "low": [-1, -3, -1], "high": [2, -1, 1], "comparison": "m" * 44})
VERDICTS = {"verdict": ["supported, by less than the margin", "refuted", "equivalent"], "margin": [1.0, None, 0.5]}
PHOTOS = list(np.random.default_rng(0).integers(0, 256, (5, 60, 80, 3), dtype=np.uint8))
LISTS = [("plain, AP 34", PHOTOS[1:], None, ("right", "wrong", "ignored", "unknown"))]


@pytest.fixture
def drawn(tmp_path, monkeypatch):
    figure = matplotlib.figure.Figure(layout="constrained", figsize=(8.5, 5.2))
    monkeypatch.setattr(figures, "Figure", lambda **options: figure)

    def draw(make):
        make(tmp_path / "x.png")
        FigureCanvasAgg(figure).draw()
        return figure.axes

    return draw


@pytest.mark.parametrize("suffixes,make", [
    ((".png", ".svg"), partial(figures.lines, pd.DataFrame(SWEEP), "k", hue="network", log="xy")),
    ((".png", ".svg"), partial(figures.forest, FOREST)), ((".jpg",), partial(figures.ranked_lists, PHOTOS[0], LISTS)),
])  # fmt: skip
def test_line_art_is_png_and_svg_pictures_are_jpeg_with_the_same_bytes_every_time(suffixes, make, tmp_path):
    before = dict(matplotlib.rcParams)
    first, second = (make(tmp_path / folder / f"x{suffixes[0]}") for folder in "ab")
    assert sorted(path.suffix for path in first.parent.iterdir()) == sorted(suffixes)
    assert Image.open(first).mode in ("RGB", "RGBA")
    for suffix in suffixes:
        assert first.with_suffix(suffix).read_bytes() == second.with_suffix(suffix).read_bytes()
        assert not re.search(rb"20\d\d-\d\d-\d\d|dc:date", first.with_suffix(suffix).read_bytes())
    assert dict(matplotlib.rcParams) == before, "drawing leaves no trace"


@pytest.mark.parametrize("more,dark,bands", [(VERDICTS, [0, 1], [(-1.0, 2.0), (-0.5, 1.0)]), ({}, [1], [])])
def test_a_forest_is_dark_where_something_is_shown_and_has_bands_of_margins(more, dark, bands, drawn):
    ax = drawn(partial(figures.forest, FOREST.assign(**more)))[0]
    points = [line for line in ax.lines if line.get_marker() == "o"]
    assert [i for i, line in enumerate(points) if line.get_color() == figures.BLUE] == dark
    assert [(bar.get_x(), bar.get_width()) for bar in ax.patches] == bands


def test_a_line_is_the_mean_of_its_trainings_and_its_band_goes_over_all(drawn):
    curves = pd.DataFrame({"step": [1, 2, 1, 2], "loss": [1.0, 0.5, 3.0, 1.5], "network": "plain"})
    ax = drawn(partial(figures.lines, curves, "step", y="loss", hue="network"))[0]
    assert ax.lines[0].get_ydata().tolist() == [2.0, 1.0]
    assert ax.collections[0].get_paths()[0].get_extents().bounds == (1.0, 0.5, 1.0, 2.5)  # x, y, width, height


def test_a_forest_has_a_panel_for_each_unit_and_numbers_that_do_not_touch(drawn):
    axes = drawn(partial(figures.forest, FOREST.assign(**VERDICTS, unit=["points", "points", "pictures"])))
    assert [(ax.get_xlabel(), len(ax.get_yticks())) for ax in axes] == [("points", 2), ("pictures", 1)]
    ends = [end for label in axes[1].get_xticklabels() for end in label.get_window_extent().intervalx]
    assert sorted(ends) == ends


@pytest.mark.parametrize("looks", [figures.palette, partial(figures.palette, of=figures.MARKS)])
def test_one_method_has_one_colour_and_one_mark_and_no_two_methods_share_them(looks, drawn):
    for together in (figures.RERANKERS, ["none", "easy", "medium", "hard"], [*figures.NETWORKS, "structural", "CBAM"]):
        assert len(set(looks(together).values())) == len(together), together
        more = looks(["mine", *together])
        assert more[together[0]] == looks(together)[together[0]]
        assert more["mine"] not in list(more.values())[1:] or len(together) == 10
    assert looks(["GFR, α = 1"])["GFR, α = 1"] == looks(["product"])["product"] == looks(SWEEP["network"])["product"]
    lines = drawn(partial(figures.lines, pd.DataFrame(SWEEP), "k", hue="network"))[0].get_legend().get_lines()
    assert [len({getattr(x, of)() for x in lines}) for of in ("get_color", "get_marker", "is_dashed")] == [1, 2, 2]


def test_ranked_lists_frame_right_images_green_wrong_ones_orange_and_ignored_ones_grey(drawn):
    axes = drawn(partial(figures.ranked_lists, PHOTOS[0], LISTS))
    found = [matplotlib.colors.to_hex(ax.spines["left"].get_edgecolor()) for ax in axes]
    assert found == ["#ffffff", "#009e73", "#d55e00", figures.GREY, "#ffffff"]


def test_the_self_similarity_panel_marks_places_where_they_are(drawn):
    image, maps = np.zeros((200, 400, 3), np.uint8), np.zeros((10, 20, 5, 5), np.float32)
    places = [(2, 4), (7, 15)]  # (4 + 0.5) / 20 from the left, (2 + 0.5) / 10 from the top
    ax = drawn(lambda path: figures.self_similarity_panel([image], [maps], places, path, ["red"]))[0]
    marks = [ax.transAxes.inverted().transform(ax.transData.transform(mark.get_position())) for mark in ax.texts]
    np.testing.assert_allclose(marks, [(0.225, 0.75), (0.775, 0.25)])
