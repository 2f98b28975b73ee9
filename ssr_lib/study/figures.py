"""Figures: tables or pictures in, a .png out (of line art a .svg beside it) with the same bytes every time."""

import io
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import seaborn
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter
from PIL import Image, ImageOps

from ssr_lib.decode import load_image
from ssr_lib.files import write_atomic

STYLE = {**seaborn.axes_style("whitegrid"), **seaborn.plotting_context("notebook", font_scale=0.9)}
STYLE |= {"axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False, "grid.color": "#e6e6e6"}
STYLE |= {"font.family": "DejaVu Sans", "svg.hashsalt": "ssr"}  # a font of matplotlib's own, names without chance
METADATA = {"svg": {"Date": None, "Creator": None}, "png": {"Software": None}}
PALETTE = [tuple(colour) for colour in seaborn.color_palette("colorblind")]
BLUE, GREY, RED = PALETTE[0], "#8c8c8c", "#d73027"
COLOURS = {  # the same thing has the same colour in every figure
    **dict.fromkeys(("plain", "none"), PALETTE[7]),
    **dict.fromkeys(("neighbour", "αQE + DBA", "medium"), PALETTE[1]),
    **dict.fromkeys(("conv", "SuperGlobal", "hard"), PALETTE[2]),
    **dict.fromkeys(("product", "GFR", "measured here"), BLUE),
    **dict.fromkeys(("untrained", "SIFT + RANSAC"), PALETTE[5]),
    **{"easy": PALETTE[9], "structural": PALETTE[8], "AQE": PALETTE[3], "αQE": PALETTE[4], "DBA": PALETTE[6]},
}
# Colour and mark of a ranked picture: never told apart by colour alone.
FRAMES = {"right": ("#1a9850", "✓"), "wrong": (RED, "✗"), "ignored": (GREY, "–"), "unknown": (None, "")}
KINDS = ("published, first ranking", "published, re-ranked", "measured here")  # of points of the landscape
Picture = Path | np.ndarray


@contextmanager
def canvas(path: Path, size: tuple, rows: int = 1, columns: int = 1, *, line_art: bool = True) -> Iterator[tuple]:
    """A figure of `size` inches and its axes (rows, columns), written at the end; without `line_art` for pictures."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=size, layout="constrained")
        frame = {} if line_art else {"frame_on": False, "xticks": [], "yticks": []}
        yield figure, figure.subplots(rows, columns, squeeze=False, subplot_kw=frame)
        for kind in METADATA if line_art else ("png",):
            buffer = io.BytesIO()
            figure.savefig(buffer, format=kind, dpi=144 if line_art else 100, metadata=METADATA[kind])
            write_atomic(path.with_suffix(f".{kind}"), buffer.getvalue())


def _palette(names: Iterable) -> dict:
    names = list(dict.fromkeys(names))
    return {name: COLOURS.get(str(name), PALETTE[place % len(PALETTE)]) for place, name in enumerate(names)}


def _show(ax: Axes, image: Picture, title: str = "", frame: str | None = None) -> None:
    """Draw a picture centred on a white square, in a frame of that colour."""
    picture = Image.fromarray(image if isinstance(image, np.ndarray) else load_image(image))
    picture.thumbnail((160, 160), Image.Resampling.LANCZOS)
    ax.imshow(ImageOps.pad(picture, (max(picture.size),) * 2, color="white"))
    ax.set_title(title, fontsize="small", color=frame or "black", pad=3)
    ax.set_frame_on(frame is not None)
    for spine in ax.spines.values():
        spine.set(visible=True, color=frame or "white", linewidth=3)


def ranked_lists(query: Picture, rows: Sequence[tuple[str, Sequence, Sequence | None, Sequence]], path: Path) -> Path:
    """A query beside rankings of the database, one a row: (title, pictures, scores or None, statuses: see `FRAMES`)."""
    columns = 1 + max(1, *(len(pictures) for _, pictures, _, _ in rows))
    height = 1.65 * len(rows) + 0.2
    with canvas(path, (1.25 * columns, height), len(rows), columns, line_art=False) as (figure, axes):
        figure.get_layout_engine().set(h_pad=0.13, rect=(0, 0, 1, 1 - 0.2 / height))  # room for the rows' titles
        _show(axes[0, 0], query, "query")
        for row, (title, pictures, scores, statuses) in zip(axes, rows, strict=True):
            above = row[1].text(0, 1.24, title, transform=row[1].transAxes, fontweight="bold", fontsize="small")
            above.set_in_layout(False)
            for i, (image, status) in enumerate(zip(pictures, statuses, strict=True)):
                if status not in FRAMES:
                    raise ValueError(f"status {status!r} of {image}; wanted one of {', '.join(FRAMES)}")
                score = "" if scores is None else f"  {scores[i]:.2f}"
                _show(row[1 + i], image, f"{i + 1} {FRAMES[status][1]}{score}", FRAMES[status][0])
    return path


def contact_sheet(rows: Sequence[tuple[str, Sequence[Picture]]], path: Path) -> Path:
    """Pictures in labelled rows: (label, pictures)."""
    columns = max(len(pictures) for _, pictures in rows)
    with canvas(path, (1.25 * columns + 1.2, 1.25 * len(rows)), len(rows), columns, line_art=False) as (_, axes):
        for row, (label, pictures) in zip(axes, rows, strict=True):
            row[0].set_ylabel(label, rotation=0, ha="right", va="center", fontsize="small")
            for ax, image in zip(row, pictures, strict=False):
                _show(ax, image)
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
    """Lines of `y` over `x`, one for each value of `hue`; `log`: "x", "y" or "xy"."""
    with canvas(path, (6, 3.8)) as (_, ((ax,),)):
        style = {"hue": hue, "palette": _palette(table[hue]), "marker": "o", "errorbar": None}
        seaborn.lineplot(table, x=x, y=y, ax=ax, **style)
        _logarithmic(ax, log)
        ax.set_ylabel(f"{y} (%)" if y == "mAP" else y)
    return path


def heatmap(table: pd.DataFrame, path: Path) -> Path:
    """A grid of Medium mAP in percent, index down and columns across, such as k × α; the best cell is framed."""
    with canvas(path, (1.2 + 0.75 * table.shape[1], 1 + 0.42 * table.shape[0])) as (_, ((ax,),)):
        seaborn.heatmap(table, ax=ax, annot=True, fmt=".1f", cmap="viridis", cbar_kws={"label": "Medium mAP (%)"})
        if table.notna().any(axis=None):
            row, column = np.unravel_index(np.nanargmax(table), table.shape)
            ax.add_patch(matplotlib.patches.Rectangle((column, row), 1, 1, fill=False, ec=RED, lw=2.5, clip_on=False))
    return path


def learning_curves(curves: Mapping[str, Sequence[pd.DataFrame]], path: Path, *, one_pass: float | None = None) -> Path:
    """Loss and accuracy of each name, mean and range of its seeds; a dotted line after each `one_pass` steps."""
    every = pd.concat({name: pd.concat(seeds) for name, seeds in curves.items()}, names=["network"]).reset_index()
    with canvas(path, (9, 3.4), 1, 2) as (_, axes):
        for ax, quantity in zip(axes[0], ("loss", "accuracy"), strict=True):
            style = {"hue": "network", "palette": _palette(curves), "legend": quantity == "accuracy"}
            seaborn.lineplot(every, x="step", y=quantity, errorbar=("pi", 100), ax=ax, **style)
            for end in np.arange(one_pass, every["step"].max(), one_pass) if one_pass else ():
                ax.axvline(end, color=GREY, ls=":", lw=1)
    return path


def cost(table: pd.DataFrame, path: Path) -> Path:
    """Quality ("mAP") over cost ("online ms a query"), a point a row ("re-ranking"): up and to the left is better."""
    x, y, names = (table[column] for column in ("online ms a query", "mAP", "re-ranking"))
    colours = list(_palette(names).values())
    with canvas(path, (7, 4)) as (_, ((ax,),)):
        ax.scatter(x, y, s=80, color=colours)
        _logarithmic(ax, "x")
        ax.set(xlabel="online ms a query", ylabel="Medium mAP (%)")
        _names_beside(ax, list(zip(x, y, names, colours, strict=True)))
    return path


def bars(table: pd.DataFrame, path: Path, *, x: str, hue: str) -> Path:
    """Bars of "value" (Medium mAP), grouped by `x` and coloured by `hue`, with whiskers from "low" to "high"."""
    groups, names = table[x].unique(), table[hue].unique()
    at = table.drop_duplicates([x, hue]).pivot(index=x, columns=hue).reindex(groups)
    whiskers = [[at["value"][name] - at["low"][name], at["high"][name] - at["value"][name]] for name in names]
    with canvas(path, (1.8 + 2.0 * len(groups), 3.8)) as (_, ((ax,),)):
        style = {"color": _palette(names), "capsize": 3, "width": 0.8, "rot": 0, "ylabel": "Medium mAP (%)"}
        at["value"][names].plot.bar(ax=ax, yerr=np.array(whiskers), **style)
        ax.legend(title=hue, loc="upper left", bbox_to_anchor=(1, 1))
    return path


def forest(table: pd.DataFrame, path: Path) -> Path:
    """Each "difference" from "low" to "high", a "comparison" a row; dark by its "verdict" or an interval without 0."""
    names, shown = [textwrap.fill(name, 44) for name in table["comparison"]], (table["low"] > 0) | (table["high"] < 0)
    if "verdict" in table:
        shown = table["verdict"].isin(["supported", "refuted"])
    with canvas(path, (8, 0.9 + 0.36 * len(table) + 0.14 * "".join(names).count("\n"))) as (_, ((ax,),)):
        for place, (dark, row) in enumerate(zip(shown, table.to_dict("records"), strict=True)):
            ax.plot([row["low"], row["high"]], [place, place], color=BLUE if dark else GREY, lw=2)
            ax.plot(row["difference"], place, "o", color=BLUE if dark else GREY, mfc=None if dark else "white")
        ax.axvline(0, color="black", lw=1)
        ax.set_yticks(range(len(table)), names, fontsize="small")
        ax.set(ylim=(len(table) - 0.5, -0.5), xlabel="difference (points)")
    return path


def gain_by_positives(table: pd.DataFrame, path: Path) -> Path:
    """The "gain" of each query over its number of "positives", and mean and standard error in octaves of them."""
    octave = 2 ** np.floor(np.log2(table["positives"]))
    with canvas(path, (6, 3.8)) as (_, ((ax,),)):
        ax.scatter("positives", "gain", data=table, s=12, color=GREY, alpha=0.5, lw=0, label="a query")
        style = {"errorbar": "se", "err_style": "bars", "marker": "o", "label": "mean ± standard error of an octave"}
        seaborn.lineplot(x=table["positives"].groupby(octave).transform("mean"), y=table["gain"], ax=ax, **style)
        ax.axhline(0, color="black", lw=1)
        _logarithmic(ax, "x")
        ax.set(xlabel="positives of the query (Medium)", ylabel="gain in AP (points)")
    return path


def published_landscape(published: pd.DataFrame, path: Path, *, measured: pd.DataFrame) -> Path:
    """Published Medium mAP ("roxf_M", "rpar_M") and `measured` stars, with the names that no other of a kind beats."""
    published = published.assign(kind=np.where(published["rerank"].fillna("none") == "none", *KINDS[:2]))
    points = pd.concat([published, measured.assign(kind=KINDS[2])]).dropna(subset=["roxf_M", "rpar_M"])
    named = []
    with canvas(path, (8.5, 5.2)) as (_, ((ax,),)):
        for kind, marker, colour in zip(KINDS, "o^*", (GREY, PALETTE[1], BLUE), strict=True):
            rows = points[points["kind"] == kind].sort_values(["roxf_M", "rpar_M"], ascending=False)
            ax.scatter("roxf_M", "rpar_M", data=rows, s=60, marker=marker, color=colour, alpha=0.8, label=kind)
            front = rows["rpar_M"] > rows["rpar_M"].cummax().shift(fill_value=-np.inf)
            best = rows[front | (kind == KINDS[2])].drop_duplicates("method")
            named += [(*point, colour) for point in best[["roxf_M", "rpar_M", "method"]].itertuples(index=False)]
        ax.set(xlabel="ROxford5k Medium mAP (%)", ylabel="RParis6k Medium mAP (%)")
        ax.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3)
        _names_beside(ax, named)
    return path


def _names_beside(ax: Axes, points: Sequence[tuple]) -> None:
    """Names of points (x, y, name, colour) in a column at the right, the highest first, with lines to them."""
    for place, (x, y, name, colour) in enumerate(sorted(points, key=lambda point: -point[1])):
        style = {"textcoords": "axes fraction", "va": "center", "fontsize": "small"}
        style["arrowprops"] = {"arrowstyle": "-", "color": colour, "lw": 0.7, "shrinkB": 4, "relpos": (0, 0.5)}
        ax.annotate(name, (x, y), xytext=(1.03, 1 - (place + 0.5) / len(points)), **style)


def _logarithmic(ax: Axes, axes: str) -> None:
    """Logarithmic `axes` ("x", "y", "xy") with ticks, written out, at 1, 2 and 5 of each decade, or at 1 of many."""
    for name in axes:
        ax.set(**{f"{name}scale": "log"})
        axis = ax.xaxis if name == "x" else ax.yaxis
        low, high = axis.get_view_interval()
        ticks = LogLocator(subs=(1, 2, 5) if high < 1000 * low else (1,))
        axis.set(major_locator=ticks, major_formatter="{x:g}", minor_formatter=NullFormatter())
