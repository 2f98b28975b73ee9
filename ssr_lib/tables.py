"""Tables of figures for reading: rows of results turned into a grid, and a grid written as CSV and Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from ssr_lib.data.benchmark import write_atomic


def over_seeds(frame: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """Mean of `value` over the trainings of each group: columns `by`, `value`, `sd` (NaN for one), `n_seeds`.

    `ci_low`, `ci_high` stay where a group is one row. Groups keep the order in which they first appear. Raises
    `ValueError` where two rows of a group have the same seed: then `by` leaves out a column that tells them apart.
    """
    twice = frame.duplicated([*by, "seed"], keep=False)
    if twice.any():
        telling = [c for c in frame if c not in (*by, "seed") and frame.loc[twice, c].nunique(dropna=False) > 1]
        raise ValueError(
            f"{int(twice.sum())} rows share {', '.join(by)} and the seed; "
            f"add one of the columns that tell them apart: {', '.join(telling)}"
        )
    groups = frame.groupby(list(by), dropna=False, sort=False)
    table = groups.agg(value=("value", "mean"), sd=("value", "std"), n_seeds=("value", "size")).reset_index()
    for end in ("ci_low", "ci_high"):
        table[end] = groups[end].first().to_numpy()
        table.loc[table["n_seeds"] > 1, end] = float("nan")
    return table


def grid(
    frame: pd.DataFrame,
    index: str | Sequence[str],
    columns: str,
    *,
    percent: bool = True,
    digits: int = 1,
    spread: str = "sd",
    order: Mapping[str, Sequence] | None = None,
) -> pd.DataFrame:
    """Rows of results as a grid of text: "56.3 ± 0.8" over seeds, or "56.3 [54.1, 58.4]" with `spread="ci"`.

    `percent`: values times 100. `spread`: "sd" (of the seeds), "ci" or "none". `order`: for an index or column name its
    values in the wanted order (others follow). A cell that no row fills is "". Raises as `over_seeds` does.
    """
    if spread not in ("sd", "ci", "none"):
        raise ValueError(f"spread is {spread!r}; wanted 'sd', 'ci' or 'none'")
    index = [index] if isinstance(index, str) else list(index)
    table = over_seeds(frame, [*index, columns])
    factor = 100 if percent else 1
    number = lambda value: f"{value * factor:.{digits}f}"  # noqa: E731

    def cell(row: pd.Series) -> str:
        if pd.isna(row["value"]):
            return "–"
        text = number(row["value"])
        if spread == "sd" and not pd.isna(row["sd"]):
            text += f" ± {number(row['sd'])}"
        if spread == "ci" and not pd.isna(row["ci_low"]):
            text += f" [{number(row['ci_low'])}, {number(row['ci_high'])}]"
        return text

    table["cell"] = table.apply(cell, axis=1) if len(table) else ""
    for name in (*index, columns):
        wanted = [v for v in (order or {}).get(name, ()) if v in set(table[name])]
        table[name] = pd.Categorical(table[name], list(dict.fromkeys([*wanted, *table[name].dropna()])), ordered=True)
    wide = table.pivot(index=index, columns=columns, values="cell").sort_index().sort_index(axis=1)
    wide = wide.set_axis([str(name) for name in wide.columns], axis=1).fillna("")
    return wide.rename_axis(columns=None).reset_index()


def to_markdown(frame: pd.DataFrame, *, digits: int = 1) -> str:
    """A Markdown table: numbers to `digits` decimals and to the right, missing values empty, pipes escaped."""
    numeric = [pd.api.types.is_numeric_dtype(kind) for kind in frame.dtypes]

    def text(value: object) -> str:
        if pd.isna(value):
            return ""
        shown = f"{value:.{digits}f}" if isinstance(value, float) else str(value)
        return shown.replace("|", "\\|").replace("\n", " ")

    lines = ["| " + " | ".join(text(str(name)) for name in frame.columns) + " |"]
    lines.append("|" + "|".join(" ---: " if right else " --- " for right in numeric) + "|")
    lines += ["| " + " | ".join(text(value) for value in row) + " |" for row in frame.itertuples(index=False)]
    return "\n".join(lines) + "\n"


def to_html(frame: pd.DataFrame, *, digits: int = 1) -> str:
    """The same table as HTML, without style of its own and without the index."""
    return frame.to_html(index=False, border=0, na_rep="", float_format=lambda value: f"{value:.{digits}f}")


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
