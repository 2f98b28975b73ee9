"""Tables for reading, in notebooks and as CSV and Markdown."""

from pathlib import Path

import pandas as pd
from pandas.io.formats.style import Styler

from ssr_lib.files import write_atomic


def mean_and_deviation(scores: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """Mean scores in percent, a row for each value of `by`, a column a difficulty: "43.1 ± 0.6" over several seeds."""
    means = 100 * scores.groupby([*by, "difficulty", "seed"], sort=False, dropna=False)["value"].mean()
    cells = means.groupby([*by, "difficulty"], sort=False).agg(["mean", "std", "count"])
    deviation = cells["std"].map(" ± {:.1f}".format).where(cells["count"] > 1, "")
    table = (cells["mean"].map("{:.1f}".format) + deviation).unstack(sort=False)
    table.insert(0, "seeds", scores.groupby(by, sort=False)["seed"].nunique())
    return table.reset_index().rename_axis(columns=None)


def styled(frame: pd.DataFrame, digits: int = 2) -> Styler:
    """A table as notebooks show it: `digits` decimals, p-values never 0, nothing where nothing is known."""
    formats = {"p": lambda p: "<0.01" if p < 0.01 else f"{p:.2f}"} if "p" in frame else {}
    return frame.style.format(formats, precision=digits, na_rep="").hide(axis="index")


def write_table(frame: pd.DataFrame, path: Path, *, digits: int = 1) -> None:
    """Write `<path>.csv` (six significant digits) and `<path>.md` (`digits` decimals); an index becomes columns."""
    if not isinstance(frame.index, pd.RangeIndex):
        frame = frame.reset_index()
    rule = ["---:" if pd.api.types.is_numeric_dtype(kind) else "---" for kind in frame.dtypes]
    cells = [[_cell(value, digits) for value in row] for row in (frame.columns, *frame.itertuples(index=False))]
    text = frame.to_csv(index=False, lineterminator="\n", float_format="%.6g")
    write_atomic(path.with_name(f"{path.name}.csv"), text)
    markdown = [f"| {' | '.join(line)} |\n" for line in (cells[0], rule, *cells[1:])]
    write_atomic(path.with_name(f"{path.name}.md"), "".join(markdown))


def _cell(value: object, digits: int) -> str:
    """A value for Markdown: numbers below 1 with three significant digits, nothing where nothing is known."""
    if pd.isna(value):
        return ""
    if isinstance(value, float):
        return f"{value:.3g}" if 0 < abs(value) < 1 else f"{value:.{digits}f}"
    return str(value).replace("|", "\\|").replace("\n", " ")


def of_dataset(name: str, dataset: str) -> str:
    """A file name that tells the datasets of a profile apart; the drawn benchmark's needs no addition."""
    return name if dataset == "drawn" else f"{name}_{dataset}"
