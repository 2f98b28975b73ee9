"""Tables for reading: means with their deviation, and how a notebook shows them."""

import numpy as np
import pandas as pd
from pandas.io.formats.style import Styler

from ssr_lib.significance import mean_interval


def mean_and_deviation(scores: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """Mean scores in percent, a row for each value of `by`, a column a difficulty: "43.1 ± 0.6" over several seeds."""
    means = 100 * scores.groupby([*by, "difficulty", "seed"], sort=False, dropna=False)["value"].mean()
    cells = means.groupby([*by, "difficulty"], sort=False).agg(["mean", "std", "count"])
    deviation = cells["std"].map(" ± {:.1f}".format).where(cells["count"] > 1, "")
    table = (cells["mean"].map("{:.1f}".format) + deviation).unstack(sort=False)
    table.insert(0, "seeds", scores.groupby(by, sort=False)["seed"].nunique())
    return table.reset_index().rename_axis(columns=None)


def difference(comparison: str, first, second, groups, level: float = 0.95) -> dict:
    """A paired difference of values (S, Q) or (Q,) as a row in points; without ends where one group has values."""
    gain = np.atleast_2d(np.asarray(first, float) - np.asarray(second, float))
    known = ~np.isnan(gain).any(axis=0)
    row = {"comparison": comparison, "difference": 100 * gain[:, known].mean()}
    row |= {"queries": int(known.sum()), "landmarks": len(np.unique(np.asarray(groups)[known]))}
    if row["landmarks"] > 1:
        found = mean_interval(gain, groups, level)
        row |= {"low": 100 * found.ci_low, "high": 100 * found.ci_high}
    return row


def styled(frame: pd.DataFrame, digits: int = 2) -> Styler:
    """A table as notebooks show it: `digits` decimals, nothing where nothing is known, no name drawn at random."""
    return frame.style.set_uuid("table").format(precision=digits, na_rep="").hide(axis="index")
