"""Measured figures as rows: one row a figure, with everything that made it in its key.

A results folder holds `results.csv` (the figures), `per_query.csv.gz` (the average precision of every query behind
figures that are compared), `costs.csv` (seconds, memory, bytes) and `run.json` (commit, versions, machine). Tables and
figures are made from these files. Rows are sorted and numbers rounded, so equal figures give equal files.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from ssr_lib.files import folder_lock, read_json, write_atomic
from ssr_lib.study.provenance import describe_run

EXPERIMENTS = ("backbones", "ablation", "components", "rerank", "sweep", "claims", "photos", "comparison")
# What a column holds: text, a whole number, a measured figure (six decimals) or a parameter (six significant digits).
KEY = {
    "experiment": "text",
    "dataset": "text",
    "split": "text",
    "subset": "text",
    "backbone": "text",
    "variant": "text",
    "seed": "whole",
    "rerank": "text",
    "k": "whole",
    "alpha": "parameter",
    "params": "text",
}
FIGURE_KEY = KEY | {"metric": "text", "difficulty": "text"}
FIGURE = {"value": "figure", "ci_low": "figure", "ci_high": "figure", "n_queries": "whole", "n_groups": "whole"}
QUERY_KEY = KEY | {"difficulty": "text"}
QUERY = {"query": "whole", "group": "text", "ap": "figure"}
COST_KEY = KEY | {"quantity": "text", "unit": "text"}
COST = {"value": "parameter"}


def canonical_params(params: Mapping | str | None) -> str:
    """The JSON text of a row's further parameters: keys sorted, no spaces, NumPy numbers made plain; "{}" for none."""
    if isinstance(params, str):
        params = json.loads(params)
    plain = lambda value: value.item() if isinstance(value, np.generic) else str(value)
    return json.dumps(dict(params or {}), sort_keys=True, separators=(",", ":"), default=plain)


def _to_text(kind: str, value: object) -> str:
    if value is None or value is pd.NA or (isinstance(value, float | np.floating) and math.isnan(value)):
        return ""
    if kind == "text":
        return str(value)
    if kind == "whole":
        return str(int(value))
    text = f"{float(value):.6f}" if kind == "figure" else f"{float(value):.6g}"
    return text.lstrip("-") if float(text) == 0 else text  # no "-0.000000"


def _from_text(kind: str, text: str) -> str | int | float | None:
    if kind == "text":
        return text
    if text == "":
        return None
    return int(text) if kind == "whole" else float(text)


class _Table:
    """One CSV file as a mapping key → rows of values, with the changes that are not yet on disk.

    What was read or written last is remembered for as long as the file stays the same, with each key's lines of text: a
    file of some hundred thousand rows is read and formatted once a process and not once a question.
    """

    def __init__(self, path: Path, key: dict[str, str], values: dict[str, str]):
        self.path, self.key, self.values = path, key, values
        self.columns = key | values
        self.pending: dict[tuple, list[tuple]] = {}
        self._on_disk: dict[tuple, list[tuple]] = {}
        self._lines: dict[tuple, str] = {}  # of keys on disk, as far as they were formatted
        self._signature: tuple | None = None  # of the file that `_on_disk` is the content of

    def put(self, key: Mapping, rows: Sequence[Sequence]) -> None:
        as_stored = lambda kinds, cells: tuple(  # what a reader of the file gets back
            _from_text(kind, _to_text(kind, cell)) for kind, cell in zip(kinds, cells, strict=True)
        )
        name = as_stored(self.key.values(), [key[column] for column in self.key])
        self.pending[name] = [as_stored(self.values.values(), row) for row in rows]

    def stored(self) -> dict[tuple, list[tuple]]:
        signature = self._file_signature()
        if signature != self._signature:
            self._on_disk, self._lines = (self._read() if signature else {}), {}
            self._signature = signature
        return self._on_disk

    def _file_signature(self) -> tuple | None:
        """What changes whenever the file is replaced; None where there is none."""
        try:
            status = self.path.stat()
        except FileNotFoundError:
            return None
        return status.st_ino, status.st_size, status.st_mtime_ns

    def _read(self) -> dict[tuple, list[tuple]]:
        data, remedy = self.path.read_bytes(), "move the file away and run the study again"
        try:
            text = (gzip.decompress(data) if self.path.suffix == ".gz" else data).decode()
        except (EOFError, OSError, zlib.error, UnicodeDecodeError) as error:
            raise ValueError(f"{self.path} is damaged ({error}); {remedy}") from error
        lines = csv.reader(io.StringIO(text))
        header = next(lines, [])
        if header != list(self.columns):
            wanted = ", ".join(self.columns)
            raise ValueError(f"{self.path} has columns {', '.join(header)}; wanted {wanted}; {remedy}")
        rows: dict[tuple, list[tuple]] = {}
        key_kinds, value_kinds, width = list(self.key.values()), list(self.values.values()), len(self.key)
        last: list[str] = []
        for line in lines:
            if len(line) != len(self.columns):
                raise ValueError(f"{self.path} line {lines.line_num} is cut off; {remedy}")
            if line[:width] != last:  # rows of one key stand together
                last = line[:width]
                of_key = rows.setdefault(tuple(map(_from_text, key_kinds, last)), [])
            of_key.append(tuple(map(_from_text, value_kinds, line[width:])))
        return rows

    def current(self) -> dict[tuple, list[tuple]]:
        return self.stored() | self.pending

    def frame(self, filters: Mapping) -> pd.DataFrame:
        """The rows that match: a filter is a value, a list of values, or None for "left empty"."""
        for column in filters:
            if column not in self.columns:
                raise ValueError(f"no column {column!r}; there are {', '.join(self.columns)}")
        matches, rows = self.matcher({c: v for c, v in filters.items() if c in self.key}), self.current()
        keys = sorted((key for key in rows if matches(key)), key=_sort_key)
        frame = pd.DataFrame([(*key, *row) for key in keys for row in rows[key]], columns=list(self.columns))
        kinds = {"text": "str", "whole": "Int64", "figure": "float64", "parameter": "float64"}
        frame = frame.astype({column: kinds[kind] for column, kind in self.columns.items()})
        for column, value in filters.items():
            if column not in self.key:
                wanted = _wanted(column, value)
                frame = frame[
                    frame[column].isin([one for one in wanted if one is not None])
                    | (frame[column].isna() & (None in wanted))
                ]
        return frame.reset_index(drop=True)

    def matcher(self, filters: Mapping) -> Callable[[tuple], bool]:
        """Whether a key has, in each column named, one of the values wanted."""
        wanted = [(list(self.key).index(column), _wanted(column, value)) for column, value in filters.items()]
        return lambda key: all(key[at] in values for at, values in wanted)

    def write(self) -> bool:
        """Merge the changes into the file; True if that changed it. The caller holds the folder's lock."""
        if not self.pending:
            return False
        rows = self.current()
        lines = {key: self._lines.get(key) for key in sorted(rows, key=_sort_key)} | dict.fromkeys(self.pending)
        lines = {key: text or self._format(key, rows[key]) for key, text in lines.items()}
        data = (",".join(self.columns) + "\n" + "".join(lines.values())).encode()
        if self.path.suffix == ".gz":
            data = gzip.compress(data, compresslevel=6, mtime=0)
        changed = not self.path.is_file() or self.path.read_bytes() != data
        if changed:
            write_atomic(self.path, data)
        self.pending = {}
        self._on_disk, self._lines, self._signature = rows, lines, self._file_signature()
        return changed

    def _format(self, key: tuple, rows: list[tuple]) -> str:
        buffer = io.StringIO()
        writer = csv.writer(buffer, lineterminator="\n")
        head = list(map(_to_text, self.key.values(), key))
        writer.writerows([*head, *map(_to_text, self.values.values(), row)] for row in rows)
        return buffer.getvalue()


def _sort_key(key: tuple) -> tuple:
    return tuple((cell is not None, cell) for cell in key)  # missing before 0


class Results:
    """The rows of one results folder; what is added is seen by `frame` at once and by other processes after `save`.

    A row replaces the row with the same key. `save` merges with what another process has saved meanwhile.
    """

    def __init__(self, directory: Path | str):
        self.directory = Path(directory)
        self._figures = _Table(self.directory / "results.csv", FIGURE_KEY, FIGURE)
        self._queries = _Table(self.directory / "per_query.csv.gz", QUERY_KEY, QUERY)
        self._costs = _Table(self.directory / "costs.csv", COST_KEY, COST)
        self._tables = (self._figures, self._queries, self._costs)

    def __repr__(self) -> str:
        figures, costs = len(self._figures.current()), len(self._costs.current())
        return f"Results({self.directory.name}: {figures} figures, {costs} costs)"

    def add(
        self,
        *,
        metric: str,
        value: float,
        difficulty: str = "",
        ci_low: float | None = None,
        ci_high: float | None = None,
        n_queries: int | None = None,
        n_groups: int | None = None,
        **key,
    ) -> None:
        """Add one figure under the key columns (see `key_of` for the ones left out); mAP and precision in [0, 1].

        `value` may be NaN (nothing to measure), not infinite. `ci_low`, `ci_high`: both or neither.
        Raises `ValueError` for an unknown experiment or column, an infinite value or an interval upside down.
        """
        if math.isinf(value):
            raise ValueError(
                f"the value of {metric} is infinite; a figure is a finite number, or NaN where there is none"
            )
        if (ci_low is None) != (ci_high is None) or (ci_low is not None and ci_low > ci_high):
            raise ValueError(
                f"the interval of {metric} is [{ci_low}, {ci_high}]; wanted two ends, the lower first, or none"
            )
        row = (value, ci_low, ci_high, n_queries, n_groups)
        self._figures.put(key_of(**key) | {"metric": metric, "difficulty": difficulty}, [row])

    def add_per_query(self, *, ap: Sequence[float], groups: Sequence[str], difficulty: str, **key) -> None:
        """Add the average precision (NaN: a query without positives) and the group of every query behind one figure."""
        if len(ap) != len(groups):
            raise ValueError(f"{len(ap)} values of ap for {len(groups)} groups; wanted one of each for every query")
        rows = [(i, group, float(value)) for i, (group, value) in enumerate(zip(groups, ap, strict=True))]
        self._queries.put(key_of(**key) | {"difficulty": difficulty}, rows)

    def add_cost(self, *, quantity: str, value: float, unit: str, **key) -> None:
        """Add what something costs, for instance quantity "time per query", unit "ms"."""
        self._costs.put(key_of(**key) | {"quantity": quantity, "unit": unit}, [(float(value),)])

    def save(self) -> None:
        """Write what was added: each file atomically, under the folder's lock; `run.json` if any of them changed."""
        with folder_lock(self.directory, wait=True):
            if any([table.write() for table in self._tables]):  # a list: every table is written
                record = (read_json(self.directory / "run.json") or {}) | describe_run()  # a study's has more in it
                write_atomic(self.directory / "run.json", json.dumps(record, indent=1) + "\n")

    def frame(self, **filters) -> pd.DataFrame:
        """The figures as a table, sorted by key; a filter is a value, a list of values, or None for "left empty".

        `params` may be given as a mapping. Columns `seed`, `k`, `n_queries`, `n_groups` are Int64 with missing values.
        """
        return self._figures.frame(filters)

    def per_query(self, **filters) -> pd.DataFrame:
        """One row for every query behind the figures: key columns, `query` (place in the benchmark), `group`, `ap`."""
        return self._queries.frame(filters)

    def costs(self, **filters) -> pd.DataFrame:
        """The costs as a table: key columns, `quantity`, `unit`, `value`."""
        return self._costs.frame(filters)


def key_of(
    *,
    experiment: str,
    dataset: str,
    backbone: str,
    variant: str,
    split: str = "test",
    subset: str = "all",
    seed: int | None = None,
    rerank: str = "none",
    k: int | None = None,
    alpha: float | None = None,
    params: Mapping | str | None = None,
) -> dict:
    """The key columns of a row.

    `seed`: of the training, None where nothing was trained; `params`: all else that varies. A figure over several
    trainings has no `seed` and says `params={"seeds": n}`. Raises `ValueError` for an experiment that is not one of
    `EXPERIMENTS`.
    """
    if experiment not in EXPERIMENTS:
        raise ValueError(f"no experiment {experiment!r}; wanted one of {', '.join(EXPERIMENTS)}")
    return {
        "experiment": experiment,
        "dataset": dataset,
        "split": split,
        "subset": subset,
        "backbone": backbone,
        "variant": variant,
        "seed": seed,
        "rerank": rerank,
        "k": k,
        "alpha": alpha,
        "params": canonical_params(params),
    }


def _wanted(column: str, value: object) -> list:
    if column == "params":
        value = canonical_params(value)
    return list(value) if isinstance(value, list | tuple | set | np.ndarray | pd.Series) else [value]
