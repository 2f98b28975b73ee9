"""Tables for reading, written as CSV and Markdown."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from pandas.io.formats.style import Styler

from ssr_lib.files import write_atomic


def p_text(p: float) -> str:
    """A p-value with two decimals, and "<0.01" rather than 0."""
    return "<0.01" if p < 0.01 else f"{p:.2f}"


def styled(table: pd.DataFrame) -> Styler:
    """A table of differences as notebooks show it: two decimals, p-values never 0, nothing where nothing is known."""
    formats = {"p": p_text} if "p" in table else {}
    return table.style.format(formats, precision=2, na_rep="").hide(axis="index")


def to_markdown(frame: pd.DataFrame, *, digits: int = 1) -> str:
    """A Markdown table, numbers to the right, missing values empty, pipes escaped.

    Numbers have `digits` decimals, in columns of small ones as many as give the largest three significant digits, up to
    four; a column "p" has two, and "<0.01".
    """
    numeric = [pd.api.types.is_numeric_dtype(kind) for kind in frame.dtypes]

    def decimals(values: pd.Series) -> int:
        largest = values.abs().replace(np.inf, np.nan).max()
        return digits if not largest > 0 else int(np.clip(2 - np.floor(np.log10(largest)), digits, max(4, digits)))

    def text(value: object, name: str = "", places: int = digits) -> str:
        if pd.isna(value):
            return ""
        if name == "p":
            return p_text(value)
        shown = f"{value:z.{places}f}" if isinstance(value, float) else str(value)
        return shown.replace("|", "\\|").replace("\n", " ")

    places = [decimals(frame[name]) if right else digits for name, right in zip(frame.columns, numeric, strict=True)]
    lines = ["| " + " | ".join(text(str(name)) for name in frame.columns) + " |"]
    lines.append("|" + "|".join(" ---: " if right else " --- " for right in numeric) + "|")
    for row in frame.itertuples(index=False):
        cells = (text(value, name, d) for value, name, d in zip(row, frame.columns, places, strict=True))
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def write_table(frame: pd.DataFrame, path: Path | str, *, digits: int = 1) -> None:
    """Write `<path>.csv` (full precision) and `<path>.md`, atomically; a meaningful index becomes columns."""
    path = Path(path)
    if not isinstance(frame.index, pd.RangeIndex):
        frame = frame.reset_index()
    write_atomic(
        path.with_name(path.name + ".csv"), frame.to_csv(index=False, lineterminator="\n", float_format="%.6g")
    )
    write_atomic(path.with_name(path.name + ".md"), to_markdown(frame, digits=digits))


def of_dataset(name: str, dataset: str) -> str:
    """A file name that tells the datasets of a profile apart; the drawn benchmark's needs no addition."""
    return name if dataset == "synthetic" else f"{name}_{dataset}"
