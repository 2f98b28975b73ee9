"""Where figures are drawn: one style, small files, the same bytes every time, and no state kept between figures."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import matplotlib
import numpy as np
import seaborn
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image, ImageOps

from ssr_lib.files import write_atomic
from ssr_lib.images import load_image

LARGEST = 300_000  # bytes of a PNG
STYLE = {
    **seaborn.axes_style("whitegrid"),
    **seaborn.plotting_context("notebook", font_scale=0.9),
    "font.family": "DejaVu Sans",  # comes with matplotlib, so that text is the same everywhere
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": "medium",
    "axes.titleweight": "bold",
    "grid.color": "#e6e6e6",
    "legend.frameon": False,
    "svg.hashsalt": "ssr",
    "svg.fonttype": "path",
}
PALETTE = [tuple(colour) for colour in seaborn.color_palette("colorblind")]
COLOURS = {  # the same thing has the same colour in every figure
    **dict.fromkeys(("plain", "none", "Easy"), PALETTE[7]),
    **dict.fromkeys(("neighbour", "αQE + DBA", "Medium"), PALETTE[1]),
    **dict.fromkeys(("conv", "SuperGlobal", "Hard"), PALETTE[2]),
    **dict.fromkeys(("self-similarity", "ours"), PALETTE[0]),
    **dict.fromkeys(("untrained", "SIFT + RANSAC"), PALETTE[5]),
    **{"AQE": PALETTE[3], "αQE": PALETTE[4], "DBA": PALETTE[6]},
}


@contextmanager
def canvas(
    path: Path | str, size: tuple[float, float], rows: int = 1, columns: int = 1, *, line_art: bool = True
) -> Iterator[tuple[Figure, np.ndarray]]:
    """A figure of `size` inches with axes (rows, columns), written to `path` at the end.

    Line art to a .png is written as .svg too; pictures only as .png. Raises `ValueError` for another extension.
    """
    path = Path(path)
    wanted = (".png", ".svg") if line_art else (".png",)
    if path.suffix not in wanted:
        raise ValueError(f"{path} has the extension {path.suffix!r}; wanted {' or '.join(wanted)}")
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=size, layout="constrained")
        yield figure, figure.subplots(rows, columns, squeeze=False)
        if line_art:
            buffer = io.BytesIO()
            figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
            write_atomic(path.with_suffix(".svg"), buffer.getvalue())
        if path.suffix == ".png":
            buffer = io.BytesIO()
            figure.savefig(buffer, format="png", dpi=144 if line_art else 110)
            write_atomic(path, _small_png(Image.open(buffer)))


def _small_png(image: Image.Image) -> bytes:
    """The image as PNG of 256 colours, made smaller until it has at most `LARGEST` bytes."""
    image = image.convert("RGB")
    while True:
        buffer = io.BytesIO()
        image.quantize(256, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE).save(buffer, "PNG", optimize=True)
        if len(buffer.getvalue()) <= LARGEST:
            return buffer.getvalue()
        scale = 0.95 * (LARGEST / len(buffer.getvalue())) ** 0.5  # bytes go with the area
        image = image.resize((int(image.width * scale), int(image.height * scale)), Image.Resampling.LANCZOS)


def load_pixels(image: Path | str | np.ndarray, longest: int) -> np.ndarray:
    """An image (H, W, 3) uint8, no side longer than `longest`; a file is decoded, and refused, as by `load_image`."""
    picture = Image.fromarray(image if isinstance(image, np.ndarray) else load_image(image, longest=longest))
    picture.thumbnail((longest, longest), Image.Resampling.LANCZOS)
    return np.asarray(picture)


def square(pixels: np.ndarray) -> np.ndarray:
    """The image centred on a white square, so that pictures of any shape stand in a row."""
    side = max(pixels.shape[:2])
    return np.asarray(ImageOps.pad(Image.fromarray(pixels), (side, side), color="white"))


def show(ax: Axes, pixels: np.ndarray, title: str = "", frame: str | None = None) -> None:
    """Draw an image in `ax` without ticks, under a title and in a frame of colour `frame`."""
    ax.imshow(pixels)
    ax.grid(False)
    ax.set_axis_on()
    ax.set_xticks([])
    ax.set_yticks([])
    for spine in ax.spines.values():
        spine.set(visible=frame is not None, color=frame, linewidth=3)
    if title:
        ax.set_title(title, fontsize="small", fontweight="normal", color=frame or "black", pad=3)
