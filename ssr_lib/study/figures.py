"""The figures of the study, drawn from tables and pictures.

Every function draws one figure to `path` and returns it. Line art is written as SVG too, beside the PNG.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import seaborn
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.ticker import LogLocator, NullFormatter

from ssr_lib.study.canvas import COLOURS, PALETTE, canvas, load_pixels, show, square

FRAMES = {  # colour and mark of a ranked image: never told apart by colour alone
    "right": ("#1a9850", "✓"),
    "wrong": ("#d73027", "✗"),
    "ignored": ("#8c8c8c", "–"),
    "unknown": (None, ""),
}


def ranked_lists(
    query: Path | np.ndarray,
    rows: Sequence[tuple[str, Sequence[Path], Sequence[float] | None, Sequence[str]]],
    path: Path | str,
) -> Path:
    """A query beside several rankings of the database, one a row: (title, images, scores or None, status of each image).

    A status is "right" (green), "wrong" (red), "ignored" (grey, also "junk") or "unknown" (no frame: one's own
    pictures, without labels). Raises `ValueError` for another one.
    """
    columns = 1 + max(1, *(len(images) for _, images, _, _ in rows))
    size = (1.25 * columns, 1.65 * len(rows) + 0.2)
    with canvas(path, size, len(rows), columns, line_art=False) as (figure, axes):
        figure.get_layout_engine().set(h_pad=0.13, rect=(0, 0, 1, 1 - 0.2 / size[1]))  # room for the rows' titles
        for ax in axes.flat:
            ax.set_axis_off()
        show(axes[0, 0], square(load_pixels(query, 160)), "query")
        for row, (title, images, scores, statuses) in zip(axes, rows, strict=True):
            # The row's title stands over its first image, at the left.
            above = row[1].text(0, 1.24, title, transform=row[1].transAxes, fontweight="bold", fontsize="small")
            above.set_in_layout(False)
            for i, (ax, image, status) in enumerate(zip(row[1:], images, statuses, strict=False)):
                status = "ignored" if status == "junk" else status
                if status not in FRAMES:
                    raise ValueError(f"status {status!r} of {image}; wanted one of {', '.join(FRAMES)}")
                colour, mark = FRAMES[status]
                score = "" if scores is None else f"  {scores[i]:.2f}"
                show(ax, square(load_pixels(image, 160)), f"{i + 1} {mark}{score}", colour)
    return Path(path)


def contact_sheet(rows: Sequence[tuple[str, Sequence[Path | np.ndarray]]], path: Path | str) -> Path:
    """Pictures in labelled rows: (label, images)."""
    columns = max(len(images) for _, images in rows)
    with canvas(path, (1.25 * columns + 1.2, 1.25 * len(rows)), len(rows), columns, line_art=False) as (_, axes):
        for ax in axes.flat:
            ax.set_axis_off()
        for row, (label, images) in zip(axes, rows, strict=True):
            row[0].text(-0.1, 0.5, label, transform=row[0].transAxes, ha="right", va="center", fontsize="small")
            for ax, image in zip(row, images, strict=False):
                show(ax, square(load_pixels(image, 160)))
    return Path(path)


def self_similarity_panel(
    images: Sequence[Path | np.ndarray],
    maps: Sequence[np.ndarray],
    places: Sequence[tuple[int, int]],
    path: Path | str,
    titles: Sequence[str] = (),
) -> Path:
    """Images with numbered places and, beside each, the cosines (U, V) around these places.

    `maps`: for each image the cosines (H, W, U, V) of its feature map; `places`: (h, w) on that map.
    """
    height = 1.9 * len(images)
    with canvas(path, (1.9 * (1 + len(places)) + 0.8, height), len(images), 1 + len(places), line_art=False) as (
        figure,
        axes,
    ):
        for i, (row, image, cosines) in enumerate(zip(axes, images, maps, strict=True)):
            pixels = load_pixels(image, 256)
            show(row[0], pixels, titles[i] if titles else "")
            for number, (h, w) in enumerate(places, start=1):
                x = (w + 0.5) / cosines.shape[1] * pixels.shape[1]
                y = (h + 0.5) / cosines.shape[0] * pixels.shape[0]
                row[0].plot(x, y, "o", ms=13, mfc="white", mec="black")
                row[0].text(x, y, str(number), ha="center", va="center", fontsize="small")
                ax = row[number]
                shown = ax.imshow(cosines[h, w], cmap="viridis", vmin=0, vmax=1)
                ax.set_xticks([])
                ax.set_yticks([])
                ax.grid(False)
                if i == 0:
                    ax.set_title(f"around {number}", fontsize="small", fontweight="normal")
        figure.colorbar(shown, ax=axes[:, 1:], label="cosine", shrink=0.8)
    return Path(path)


def sweep(
    table: pd.DataFrame,
    x: str,
    path: Path | str,
    *,
    y: str = "mAP",
    hue: str,
    log: str = "",
) -> Path:
    """Lines of `y` over `x`, one for each value of `hue`; `log`: "x" or "xy"."""
    with canvas(path, (6, 3.8)) as (_, axes):
        ax = axes[0, 0]
        for place, (name, rows) in enumerate(table.groupby(hue, sort=False)):
            rows = rows.sort_values(x)
            colour = COLOURS.get(str(name), PALETTE[place % len(PALETTE)])
            ax.plot(rows[x], rows[y], marker="o", ms=4, color=colour, label=str(name))
        if "x" in log:
            ax.set_xscale("log")
            _plain_ticks(ax, table[x])
        if "y" in log:
            ax.set_yscale("log")
            _log_ticks(ax.yaxis)
        ax.set_xlabel(x)
        ax.set_ylabel(f"{y} (%)" if y == "mAP" else y)
        ax.legend(title=hue)
    return Path(path)


def heat_map(table: pd.DataFrame, path: Path | str) -> Path:
    """A grid of Medium mAP in percent, index down and columns across, such as k × α; the best cell is framed."""
    with canvas(path, (1.2 + 0.75 * table.shape[1], 1 + 0.42 * table.shape[0])) as (_, axes):
        ax = axes[0, 0]
        seaborn.heatmap(table, ax=ax, annot=True, fmt=".1f", cmap="viridis", cbar_kws={"label": "Medium mAP (%)"})
        if table.notna().to_numpy().any():
            row, column = np.unravel_index(np.nanargmax(table.to_numpy(float)), table.shape)
            ax.add_patch(
                matplotlib.patches.Rectangle((column, row), 1, 1, fill=False, ec="#d73027", lw=2.5, clip_on=False)
            )
        ax.tick_params(axis="y", rotation=0)
    return Path(path)


def learning_curves(
    curves: Mapping[str, Sequence[Sequence[Mapping]]],
    path: Path | str,
    *,
    smooth: int = 5,
    one_pass: float | None = None,
) -> Path:
    """Loss and accuracy over the steps: for each name the curves of its seeds, as mean and band from least to most.

    A curve is a list of rows with `step`, `loss`, `accuracy`; `smooth`: steps of a running mean; `one_pass`: steps in which
    every view is seen once, marked by dotted lines.
    """
    with canvas(path, (9, 3.4), 1, 2) as (_, axes):
        for place, (name, seeds) in enumerate(curves.items()):
            colour = COLOURS.get(name, PALETTE[place % len(PALETTE)])
            for ax, quantity in zip(axes[0], ("loss", "accuracy"), strict=True):
                lines = pd.DataFrame(
                    {i: pd.DataFrame(list(c)).set_index("step")[quantity] for i, c in enumerate(seeds)}
                )
                lines = lines.rolling(smooth, min_periods=1).mean()
                ax.plot(lines.index, lines.mean(axis=1), color=colour, label=name)
                ax.fill_between(lines.index, lines.min(axis=1), lines.max(axis=1), color=colour, alpha=0.18, lw=0)
                ax.set_xlabel("step")
                ax.set_ylabel({"loss": "loss", "accuracy": "accuracy on the batch"}[quantity])
        for ax in axes[0] if one_pass else ():
            for end in np.arange(one_pass, ax.dataLim.x1, one_pass):
                ax.axvline(end, color="#666666", ls=":", lw=1)
        axes[0, 1].legend()
    return Path(path)


def cost_figure(table: pd.DataFrame, path: Path | str) -> Path:
    """Quality (mAP) against cost, one labelled point a row, cost on a logarithmic axis: up and to the left is better."""
    x, y, label = "online ms a query", "mAP", "re-ranking"
    with canvas(path, (6.4, 4)) as (_, axes):
        ax = axes[0, 0]
        for place, (_, row) in enumerate(table.iterrows()):
            colour = COLOURS.get(str(row[label]), PALETTE[place % len(PALETTE)])
            ax.plot(row[x], row[y], "o", ms=9, color=colour)
            ax.annotate(str(row[label]), (row[x], row[y]), xytext=(8, 5), textcoords="offset points", fontsize="small")
        ax.set_xscale("log")
        _log_ticks(ax.xaxis)
        ax.margins(x=0.3, y=0.15)
        ax.set_xlabel(x)
        ax.set_ylabel("Medium mAP (%)")
    return Path(path)


def component_bars(table: pd.DataFrame, path: Path | str, *, x: str, hue: str) -> Path:
    """Bars of mAP, grouped by `x` and coloured by `hue`, with the interval from low to high on each, in the table's order."""
    groups, names = list(dict.fromkeys(table[x])), list(dict.fromkeys(table[hue]))
    width = 0.8 / len(names)
    with canvas(path, (1.8 + 2.0 * len(groups), 3.8)) as (_, axes):
        ax = axes[0, 0]
        for i, name in enumerate(names):
            rows = table[table[hue] == name].drop_duplicates(x).set_index(x).reindex(groups)
            at = np.arange(len(groups)) + (i - (len(names) - 1) / 2) * width
            whiskers = np.abs(rows[["low", "high"]].to_numpy(float).T - rows["mAP"].to_numpy(float))
            colour = COLOURS.get(str(name), PALETTE[i % len(PALETTE)])
            ax.bar(
                at,
                rows["mAP"],
                width * 0.92,
                color=colour,
                label=str(name),
                yerr=whiskers,
                capsize=3,
                error_kw={"lw": 1},
            )
        ax.set_xticks(range(len(groups)), [str(group) for group in groups])
        ax.grid(axis="x", visible=False)
        ax.set_ylabel("Medium mAP (%)")
        ax.legend(title=hue, loc="upper left", bbox_to_anchor=(1, 1))
    return Path(path)


def difference_forest(table: pd.DataFrame, path: Path | str, *, x_label: str = "difference in mAP (points)") -> Path:
    """Differences with their intervals and a line at 0, one a row from the top.

    Dark where something is shown: by the verdict where the table has that column, else where the interval excludes 0.
    """
    names = [textwrap.fill(str(name), 44) for name in table["comparison"]]
    lines = sum(name.count("\n") for name in names)
    with canvas(path, (8, 0.9 + 0.36 * len(table) + 0.14 * lines)) as (_, axes):
        ax = axes[0, 0]
        for place, (_, row) in enumerate(table.iterrows()):
            without_0 = row["low"] > 0 or row["high"] < 0
            shown = row["verdict"] in ("supported", "refuted") if "verdict" in table else without_0
            colour = PALETTE[0] if shown else "#8c8c8c"
            ax.plot([row["low"], row["high"]], [place, place], color=colour, lw=2)
            ax.plot(row["difference"], place, "o", color=colour, ms=7, mfc=colour if shown else "white")
        ax.axvline(0, color="black", lw=1)
        ax.set_yticks(range(len(table)), names, fontsize="small")
        ax.set_ylim(len(table) - 0.5, -0.5)
        ax.grid(axis="y", visible=False)
        ax.set_xlabel(x_label)
    return Path(path)


def gain_by_positives(table: pd.DataFrame, path: Path | str) -> Path:
    """The gain of every query over its number of positives, and the mean with its standard error in octaves of them."""
    x, y = "positives", "gain"
    with canvas(path, (6, 3.8)) as (_, axes):
        ax = axes[0, 0]
        ax.scatter(table[x], table[y], s=12, color=PALETTE[7], alpha=0.5, lw=0, label="a query")
        octave = np.floor(np.log2(table[x]))
        means = table.groupby(octave).agg(x=(x, "mean"), y=(y, "mean"), sem=(y, "sem"))
        ax.errorbar(
            means["x"], means["y"], yerr=means["sem"].fillna(0), color=PALETTE[0], marker="o", capsize=3,
            label="mean ± standard error",
        )  # fmt: skip
        ax.axhline(0, color="black", lw=1)
        ax.set_xscale("log", base=2)
        _plain_ticks(ax, 2 ** np.arange(octave.min(), octave.max() + 2))
        ax.set_xlabel("positives of the query (Medium)")
        ax.set_ylabel("gain in AP (points)")
        ax.legend()
    return Path(path)


def published_landscape(
    published: pd.DataFrame,
    path: Path | str,
    *,
    measured: pd.DataFrame | None = None,
) -> Path:
    """Published mAP on two benchmarks, one point a row, apart by whether it is re-ranked; measured points as stars.

    `published`: columns roxf_M, rpar_M in percent, `rerank` ("none", or what follows the first ranking) and, where points are
    to be named, `method`: those that no other of their kind beats on both axes. `measured`: columns roxf_M, rpar_M, method.
    """
    x, y = "roxf_M", "rpar_M"
    rows = published.dropna(subset=[x, y])
    plain = rows["rerank"].fillna("none") == "none"
    kinds = (
        (rows[plain], "published, first ranking", "o", PALETTE[7], (0.84, 0.86)),
        (rows[~plain], "published, re-ranked", "^", PALETTE[1], (0.8, 0.98)),
    )
    with canvas(path, (7, 5.2)) as (_, axes):
        ax = axes[0, 0]
        for points, name, marker, colour, corner in kinds:
            ax.scatter(points[x], points[y], s=34, marker=marker, color=colour, alpha=0.7, lw=0, label=name)
            if "method" in points:
                _name_best(ax, points, x, y, corner)
        if measured is not None and len(measured):
            ax.scatter(measured[x], measured[y], s=150, marker="*", color=PALETTE[0], label="measured here", zorder=3)
            for _, row in measured.dropna(subset=[x, y]).iterrows():
                ax.annotate(
                    str(row["method"]), (row[x], row[y]), xytext=(-9, 5), textcoords="offset points", ha="right", fontsize="small",
                    color=PALETTE[0], fontweight="bold",
                )  # fmt: skip
        ax.set_xlabel("ROxford5k Medium mAP (%)")
        ax.set_ylabel("RParis6k Medium mAP (%)")
        ax.set_axisbelow(True)
        ax.legend(loc="lower right")
    return Path(path)


def _name_best(ax: Axes, points: pd.DataFrame, x: str, y: str, corner: tuple[float, float]) -> None:
    """Name the points that no other one beats on both axes, each method once, in a column from `corner` (axes fractions) down."""
    highest = points.sort_values([x, y], ascending=False)
    front = highest[highest[y] > highest[y].cummax().shift(fill_value=-np.inf)].drop_duplicates("method")
    for place, (_, row) in enumerate(front.sort_values(y, ascending=False).iterrows()):
        ax.annotate(
            row["method"],
            (row[x], row[y]),
            xytext=(corner[0], corner[1] - 0.06 * place),
            textcoords="axes fraction",
            va="center",
            fontsize="small",
            color="#444444",
            arrowprops={"arrowstyle": "-", "color": "#999999", "lw": 0.7, "shrinkB": 3},
        )


def _log_ticks(axis: Axis) -> None:
    """Ticks of a logarithmic axis at 1, 2 and 5 of each decade, written out."""
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter(NullFormatter())


def _plain_ticks(ax: Axes, values: Sequence[float]) -> None:
    """Ticks at the values themselves, written out."""
    values = sorted(set(values))
    ax.set_xticks(values, [f"{value:g}" for value in values])
    ax.minorticks_off()
