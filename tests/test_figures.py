"""Figures: every one is drawn, small, the same bytes twice, and shows what it was given."""

import io
import re

import matplotlib
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from ssr_lib.study.run.run import canvas, figures

NOISE = np.random.default_rng(0)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Twelve pictures of noise, landscape and upright, which compress badly."""
    folder = tmp_path_factory.mktemp("photos")
    for i in range(12):
        size = (320, 240, 3) if i % 2 else (240, 320, 3)
        Image.fromarray(NOISE.integers(0, 256, size, dtype=np.uint8)).save(folder / f"{i}.jpg")
    return sorted(folder.iterdir())


def tables():
    k = [1, 2, 5, 10]
    lines = [{"k": x, "difficulty": d, "mAP": 50.0 + x} for x in k for d in "EMH"]
    bars = [
        {"variant": v, "re-ranking": r, "mAP": 50.0, "low": 48.0, "high": 53.0}
        for v in ("plain", "self-similarity")
        for r in ("none", "ours")
    ]
    curve = [{"step": s, "loss": 1 / s, "accuracy": s / 20} for s in range(1, 20)]
    forest = {"comparison": ["a − b", "c − d"], "difference": [0.5, -2.0], "low": [-1.0, -3.0], "high": [2.0, -1.0]}
    published = {"roxf_M": [60.0, 70.0, None], "rpar_M": [70.0, 80.0, 90.0], "rerank": ["none", "αQE", None]}
    measured = {"roxf_M": [75.0], "rpar_M": [85.0], "method": ["ours"]}
    costs = {"re-ranking": ["none", "ours"], "online ms a query": [0.1, 0.4], "mAP": [50.0, 58.0]}
    grid = pd.DataFrame([[50.0, 51.0], [52.0, np.nan]], index=pd.Index([1, 5], name="k"), columns=[0.1, 0.5])
    return {
        "sweep": (pd.DataFrame(lines), "k"),
        "heat_map": (grid,),
        "learning_curves": ({"plain": [curve, curve], "conv": [curve]},),
        "cost_figure": (pd.DataFrame(costs),),
        "component_bars": (pd.DataFrame(bars),),
        "difference_forest": (pd.DataFrame(forest),),
        "gain_by_positives": (pd.DataFrame({"positives": [1, 2, 9, 30], "gain": [-5.0, 1.0, 4.0, 12.0]}),),
        "published_landscape": (pd.DataFrame(published), pd.DataFrame(measured)),
    }


def draw(name, path):
    arguments = tables()[name]
    if name == "sweep":
        return figures.sweep(*arguments, path, hue="difficulty", log="xy")
    if name == "component_bars":
        return figures.component_bars(*arguments, path, x="variant", hue="re-ranking")
    if name == "learning_curves":
        return figures.learning_curves(*arguments, path, one_pass=7.5)
    if name == "published_landscape":
        return figures.published_landscape(arguments[0], path, measured=arguments[1])
    return getattr(figures, name)(*arguments, path)


@pytest.mark.parametrize("name", tables())
def test_line_art_is_a_small_png_and_an_svg_with_the_same_bytes_every_time(name, tmp_path):
    first, second = draw(name, tmp_path / "a" / "x.png"), draw(name, tmp_path / "b" / "x.png")
    assert first == tmp_path / "a" / "x.png"
    for suffix in (".png", ".svg"):
        data = first.with_suffix(suffix).read_bytes()
        assert data == second.with_suffix(suffix).read_bytes()
        assert 2_000 < len(data) < canvas.LARGEST
    assert not re.search(rb"20\d\d-\d\d-\d\d|dc:date", first.with_suffix(".svg").read_bytes())
    assert not Image.open(first).info.keys() & {"Software", "Creation Time"}


@pytest.mark.parametrize("statuses", [["right", "wrong", "ignored", "junk", "right"]])
def test_ranked_lists_frame_right_images_green_wrong_ones_red_and_ignored_ones_grey(photos, tmp_path, statuses):
    def coloured(wanted: list[str]) -> dict[str, int]:
        path = figures.ranked_lists(photos[0], [("plain, AP 34", photos[1:6], None, wanted)], tmp_path / "r.png")
        pixels = np.asarray(Image.open(path).convert("RGB")).reshape(-1, 3).astype(int)
        frames = {name: colour for name, (colour, _) in figures.FRAMES.items() if colour}
        targets = {name: matplotlib.colors.to_rgb(colour) for name, colour in frames.items()}
        near = lambda rgb: int((np.abs(pixels - 255 * np.array(rgb)).max(axis=1) < 12).sum())
        return {name: near(rgb) for name, rgb in targets.items()}

    mixed, all_right, unknown = coloured(statuses), coloured(["right"] * 5), coloured(["unknown"] * 5)
    assert unknown["right"] == unknown["wrong"] == 0
    assert all_right["right"] > 2 * mixed["right"] > 500
    assert mixed["wrong"] > 250 > all_right["wrong"] + 200
    assert mixed["ignored"] > all_right["ignored"]


def test_pictures_are_kept_small_however_badly_they_compress(photos, tmp_path):
    rows = [(f"method {i}", photos[1:11], list(NOISE.random(10)), ["right"] * 10) for i in range(3)]
    first = figures.ranked_lists(photos[0], rows, tmp_path / "a.png").read_bytes()
    assert len(first) <= canvas.LARGEST
    assert (
        figures.contact_sheet([("one", photos), ("two", photos[:5])], tmp_path / "c.png").stat().st_size
        <= canvas.LARGEST
    )
    assert max(Image.open(io.BytesIO(first)).size) > 500


def test_an_unknown_status_and_an_unknown_extension_are_refused(photos, tmp_path):
    with pytest.raises(ValueError, match=r"status 'good' of .*1.jpg; wanted one of right, wrong, ignored"):
        figures.ranked_lists(photos[0], [("", photos[1:2], None, ["good"])], tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"extension '.pdf'; wanted .png or .svg"):
        draw("heat_map", tmp_path / "a.pdf")
    with pytest.raises(ValueError, match=r"extension '.svg'; wanted .png"):
        figures.contact_sheet([("", photos)], tmp_path / "a.svg")
    assert not list(tmp_path.iterdir())


def test_the_self_similarity_panel_marks_places_where_they_are(tmp_path):
    image = np.full((200, 400, 3), (220, 0, 0), np.uint8)
    maps = np.zeros((10, 20, 5, 5), np.float32)

    def marker(place):  # centre of the white disc in the red picture, as shares of its height and width
        path = figures.self_similarity_panel([image], [maps], [place], tmp_path / "a.png", ["red"])
        pixels = np.asarray(Image.open(path).convert("RGB")).astype(int)
        rows, columns = np.where((pixels[..., 0] > 200) & (pixels[..., 1] < 60))
        inside = pixels[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1, 1] > 200
        return np.argwhere(inside).mean(axis=0) / inside.shape

    assert (marker((2, 4)) < 0.35).all() and (marker((7, 15)) > 0.65).all()


def test_pictures_stand_upright_as_the_camera_says(tmp_path):
    image = Image.fromarray(np.zeros((30, 60, 3), np.uint8))
    orientation = image.getexif()
    orientation[0x0112] = 6  # a quarter turn
    image.save(tmp_path / "turned.jpg", exif=orientation)
    assert canvas.load_pixels(tmp_path / "turned.jpg", 60).shape == (60, 30, 3)


def test_pictures_in_figures_are_decoded_as_those_that_are_described(tmp_path):
    """A ramp of 16-bit grey keeps its levels, and a damaged EXIF block turns nothing."""
    ramp = np.tile(np.arange(64, dtype=np.uint16) * 1024, (48, 1))
    Image.fromarray(ramp).save(tmp_path / "ramp.png")
    np.testing.assert_array_equal(canvas.load_pixels(tmp_path / "ramp.png", 64)[:, :, 1], ramp >> 8)
    Image.new("RGB", (60, 30), "red").save(tmp_path / "odd.jpg", dpi=(72, 72), exif=b"Exif\0\0garbage")
    assert canvas.load_pixels(tmp_path / "odd.jpg", 60).shape == (30, 60, 3)


def test_drawing_leaves_no_trace_in_matplotlib(tmp_path):
    before = dict(matplotlib.rcParams)
    draw("heat_map", tmp_path / "x.png")
    assert dict(matplotlib.rcParams) == before
