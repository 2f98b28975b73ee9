"""Figures: tables or pictures in, PNG and SVG of line art or JPEG of pictures out, with the same bytes every time."""

import io
import itertools
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import seaborn
from matplotlib.figure import Figure
from PIL import Image, ImageOps

from ssr_lib.decode import load_image
from ssr_lib.files import write_atomic

STYLE = {**seaborn.axes_style("whitegrid"), **seaborn.plotting_context("notebook", font_scale=0.9)}
STYLE |= {"axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False, "grid.color": "#e6e6e6"}
STYLE |= {"font.family": "DejaVu Sans", "svg.hashsalt": "ssr", "svg.fonttype": "none"}  # names without chance, words
SAVED = {"svg": {"metadata": {"Date": None, "Creator": None}}, "png": {}}
SAVED |= {"jpg": {"pil_kwargs": {"quality": 88, "subsampling": 0}}}  # a quarter of a PNG of pictures, colour in full
PALETTE = [(0.0, 0.0, 0.0) if i == 6 else colour for i, colour in enumerate(seaborn.color_palette("colorblind"))]
BLUE, GREY = PALETTE[0], "#8c8c8c"  # place 6 is black, since seaborn has two pinks
STYLE |= {"axes.prop_cycle": matplotlib.cycler(color=PALETTE)}
# The same thing has the same colour and mark in every figure: the place in PALETTE and MARKS of its name.
MARKS = ["o", "s", "^", "D", "v", "P", "X", "<", ">", "*"]
NETWORKS = ["product", "neighbour", "conv", "attention neighbour", "attention", "untrained", "attention only", "plain"]
RERANKERS = ["GFR", "αQE + DBA", "SuperGlobal", "AQE", "αQE", "SIFT + RANSAC", "DBA", "none"]
PLACES = {name: place for place, name in enumerate([*NETWORKS, "structural", "CBAM"])} | {"hard": 3}
PLACES |= {name: place for place, name in enumerate(RERANKERS)} | {"easy": 4, "medium": 9, "adaptive GFR": 9}
FRAMES = {"right": ("#009e73", "✓"), "wrong": ("#d55e00", "✗"), "ignored": (GREY, "○"), "unknown": (None, "")}


@contextmanager
def canvas(path: Path, size: tuple, rows: int = 1, columns: int = 1, *, line_art: bool = True) -> Iterator[tuple]:
    """A figure of `size` inches and its axes (rows, columns), written at the end; pictures as `path`'s suffix says."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=size, layout="constrained")
        bare = {} if line_art else {"frame_on": False, "xticks": [], "yticks": []}
        yield figure, figure.subplots(rows, columns, squeeze=False, subplot_kw=bare)
        for kind in ("png", "svg") if line_art else (path.suffix.removeprefix("."),):
            buffer = io.BytesIO()
            figure.savefig(buffer, format=kind, dpi=144 if line_art else 100, **SAVED[kind])
            if kind == "png":  # without transparency, and with no line that names a program: an eighth smaller
                picture, buffer = Image.open(buffer).convert("RGB"), io.BytesIO()
                picture.save(buffer, kind, optimize=True)
            write_atomic(path.with_suffix(f".{kind}"), buffer.getvalue())


def palette(names: Iterable[str], of: Sequence = PALETTE) -> dict:
    """Colours, or marks, of names: a known one's own; for "GFR, α = 1" those of GFR, the mark if free; or free ones."""
    names, known = list(dict.fromkeys(names)), {}
    for name in sorted(names, key=lambda name: name not in PLACES):
        place = PLACES.get(name, PLACES.get(name.split(",")[0]))
        known[name] = None if of is MARKS and place in known.values() else place
    free = set(range(len(of))) - set(known.values()) or range(len(of))
    left = itertools.islice(itertools.cycle(free), int(of is MARKS), None)  # never a known one's colour and mark
    return {name: of[next(left) if known[name] is None else known[name]] for name in names}


def _show(ax: matplotlib.axes.Axes, image: Path | np.ndarray, title: str = "", frame: str | None = None) -> None:
    """Draw a picture centred on a white square, in a frame of that colour."""
    picture = Image.fromarray(image if isinstance(image, np.ndarray) else load_image(image))
    ax.imshow(ImageOps.pad(picture, (160, 160), Image.Resampling.LANCZOS, "white"))
    ax.set_title(title, fontsize="small", color=frame or "black", pad=3)
    ax.set_frame_on(frame is not None)
    ax.spines[:].set(visible=True, color=frame or "white", linewidth=3)


def ranked_lists(query: Path | np.ndarray, rows: Sequence[tuple], path: Path) -> Path:
    """A query beside rankings of the database, one a row: (title, pictures, scores or None, statuses: see `FRAMES`)."""
    columns = 1 + max(1, *(len(pictures) for _, pictures, _, _ in rows))
    height = 1.65 * len(rows) + 0.2
    with canvas(path, (1.25 * columns, height), len(rows), columns, line_art=False) as (figure, axes):
        figure.get_layout_engine().set(h_pad=0.13, rect=(0, 0, 1, 1 - 0.2 / height))  # room for the rows' titles
        _show(axes[0, 0], query, "query")
        for row, (title, pictures, scores, statuses) in zip(axes, rows, strict=True):
            row[1].text(0, 1.24, title, transform=row[1].transAxes, weight="bold", size="small", in_layout=False)
            for i, (image, status) in enumerate(zip(pictures, statuses, strict=True)):
                score = "" if scores is None else f"  {scores[i]:.2f}"
                _show(row[1 + i], image, f"{i + 1} {FRAMES[status][1]}{score}", FRAMES[status][0])
    return path


def self_similarity_panel(images: Sequence, maps: Sequence, places: Sequence, path: Path, titles: Sequence) -> Path:
    """Pictures with numbered places (h, w), and the cosines (H, W, U, V) of their `maps` around these places."""
    size = (1.9 * (1 + len(places)) + 0.8, 1.9 * len(images))
    with canvas(path, size, len(images), 1 + len(places), line_art=False) as (figure, axes):
        for row, image, cosines, title in zip(axes, images, maps, titles, strict=True):
            pixels = image if isinstance(image, np.ndarray) else load_image(image)
            rows, columns = cosines.shape[:2]
            extent = (-0.5, columns - 0.5, rows - 0.5, -0.5)  # in places of the map
            row[0].imshow(pixels, extent=extent, aspect=pixels.shape[0] / rows * columns / pixels.shape[1])
            row[0].set_title(title)
            for number, (h, w) in enumerate(places, start=1):
                row[0].text(w, h, str(number), ha="center", va="center", bbox={"boxstyle": "circle", "fc": "white"})
                shown = row[number].imshow(cosines[h, w], cmap="viridis", vmin=0, vmax=1)
                row[number].set_title(f"around {number}")
        figure.colorbar(shown, ax=axes[:, 1:], label="cosine", shrink=0.8)
    return path


def lines(table: pd.DataFrame, x: str, path: Path, *, y: str = "mAP", hue: str, log: str = "") -> Path:
    """Means of `y` over `x`, a line for each `hue` and a band over all its values; `log`: "x", "y" or "xy"."""
    with canvas(path, (7.5, 3.8)) as (_, ((ax,),)):
        style = {"hue": hue, "style": hue, "palette": palette(table[hue]), "markers": palette(table[hue], MARKS)}
        dashes = pd.Series(style["palette"]).duplicated().map({False: "", True: (4, 2)})  # where the colour was used
        style |= {"dashes": dict(dashes), "markevery": max(1, table[x].nunique() // 10), "markeredgewidth": 0}
        seaborn.lineplot(table, x=x, y=y, ax=ax, markersize=7, errorbar=("pi", 100), **style)
        for name in log:  # ticks, written out, at 1, 2 and 5 of each decade; below at every x where they are few
            ax.set(**{f"{name}scale": "log"})
            ticks = {"major_locator": matplotlib.ticker.LogLocator(subs=(1, 2, 5)), "major_formatter": "{x:g}"}
            getattr(ax, f"{name}axis").set(**ticks, minor_formatter=matplotlib.ticker.NullFormatter())
        ax.set(ylabel=f"{y} (%)" if y == "mAP" else y, **({"xticks": xs} if len(xs := table[x].unique()) < 21 else {}))
        seaborn.move_legend(ax, "upper left", bbox_to_anchor=(1, 1))
    return path


def forest(table: pd.DataFrame, path: Path, label: str = "difference (points)") -> Path:
    """Each "difference" from "low" to "high", a row a "comparison", on a band of its "margin", a panel for each "unit".
    At the right stands its "verdict", dark if supported or refuted; without verdicts what leaves out 0 is dark."""
    dark = (table["low"] > 0) | (table["high"] < 0)
    if "verdict" in table:
        dark = table["verdict"].str.startswith(("supported", "refuted"))
    table = table.assign(dark=dark, unit=table.get("unit", label), comparison=table["comparison"].str.wrap(44))
    panels = list(table.groupby("unit", sort=False)) or [(label, table)]
    heights = [0.8 + 0.3 * len(rows) + 0.14 * "".join(rows["comparison"]).count("\n") for _, rows in panels]
    with canvas(path, (8, sum(heights)), len(panels)) as (_, axes):
        axes[0, 0].get_gridspec().set_height_ratios(heights)
        for (ax,), (unit, rows) in zip(axes, panels, strict=True):
            for place, row in enumerate(rows.to_dict("records")):
                colour, margin = BLUE if row["dark"] else GREY, row.get("margin")
                if pd.notna(margin):
                    ax.add_patch(matplotlib.patches.Rectangle((-margin, place - 0.35), 2 * margin, 0.7, color="0.91"))
                ax.plot([row["low"], row["high"]], [place, place], color=colour, lw=2)
                ax.plot(row["difference"], place, "o", color=colour, mfc=colour if row["dark"] else "white")
            ax.axvline(0, color="black", lw=1)
            ax.set_yticks(range(len(rows)), rows["comparison"], fontsize="small")
            if "verdict" in rows:
                ax.secondary_yaxis("right").set_yticks(ax.get_yticks(), rows["verdict"].str.split(",").str[0])
            ax.set(ylim=(len(rows) - 0.5, -0.5), xlabel=unit)
            ax.locator_params(axis="x", nbins=5)  # more would touch
    return path
