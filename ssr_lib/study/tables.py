"""Tables for reading, in notebooks and as CSV and Markdown."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from pandas.io.formats.style import Styler

from ssr_lib.files import write_atomic


def p_text(p: float) -> str:
    """A p-value with two decimals, and "<0.01" rather than 0."""
    return "<0.01" if p < 0.01 else f"{p:.2f}"


def mean_and_deviation(scores: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """Means of scores in percent, a row for each value of the columns `by`, a column a difficulty.

    Over several seeds a cell reads "43.1 ± 0.6", the mean and the standard deviation of their means; `seeds` counts them.
    """
    means = 100 * scores.groupby([*by, "difficulty", "seed"], sort=False, dropna=False)["value"].mean()
    cells = means.groupby([*by, "difficulty"], sort=False).agg(["mean", "std", "count"])
    deviation = cells["std"].map(" ± {:.1f}".format).where(cells["count"] > 1, "")
    table = (cells["mean"].map("{:.1f}".format) + deviation).unstack(sort=False)
    trained = scores.groupby(by, sort=False)["seed"].nunique()
    table.insert(0, "seeds", trained.reindex(table.index))
    return table.reset_index().rename_axis(columns=None)


def styled(frame: pd.DataFrame, digits: int = 2) -> Styler:
    """A table as notebooks show it: `digits` decimals, p-values never 0, nothing where nothing is known."""
    formats = {"p": p_text} if "p" in frame else {}
    return frame.style.format(formats, precision=digits, na_rep="").hide(axis="index")


def to_markdown(frame: pd.DataFrame, *, digits: int = 1) -> str:
    """A Markdown table, numbers to the right, missing values empty, pipes escaped.

    Numbers have `digits` decimals, in columns of small ones as many as give the largest three significant digits, up to
    four; a column "p" has two, and "<0.01".
    """
    numeric = [pd.api.types.is_numeric_dtype(kind) for kind in frame.dtypes]
    lines = ["| " + " | ".join(map(_escaped, frame.columns)) + " |"]
    lines.append("|" + "|".join(" ---: " if right else " --- " for right in numeric) + "|")
    columns = [_cells(frame[name], digits, right) for name, right in zip(frame.columns, numeric, strict=True)]
    lines += ["| " + " | ".join(cells) + " |" for cells in zip(*columns, strict=True)]
    return "\n".join(lines) + "\n"


def _escaped(text: object) -> str:
    return str(text).replace("|", "\\|").replace("\n", " ")


def _cells(column: pd.Series, digits: int, numeric: bool) -> list[str]:
    if numeric:
        largest = column.abs().replace(np.inf, np.nan).max()
        if largest > 0:
            digits = int(np.clip(2 - np.floor(np.log10(largest)), digits, max(4, digits)))
    cells = []
    for value in column:
        if pd.isna(value):
            cells.append("")
        elif column.name == "p":
            cells.append(p_text(value))
        else:
            cells.append(f"{value:z.{digits}f}" if isinstance(value, float) else _escaped(value))
    return cells


def write_table(frame: pd.DataFrame, path: Path | str, *, digits: int = 1) -> None:
    """Write `<path>.csv` (six significant digits) and `<path>.md`, atomically; a meaningful index becomes columns."""
    path = Path(path)
    if not isinstance(frame.index, pd.RangeIndex):
        frame = frame.reset_index()
    text = frame.to_csv(index=False, lineterminator="\n", float_format="%.6g")
    write_atomic(path.with_name(path.name + ".csv"), text)
    write_atomic(path.with_name(path.name + ".md"), to_markdown(frame, digits=digits))


def of_dataset(name: str, dataset: str) -> str:
    """A file name that tells the datasets of a profile apart; the drawn benchmark's needs no addition."""
    return name if dataset == "drawn" else f"{name}_{dataset}"
