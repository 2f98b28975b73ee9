"""Measured figures as tidy frames: scores by query, rows with their intervals, and both as files."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ssr_lib import significance
from ssr_lib.benchmark import Benchmark
from ssr_lib.files import digest, read_json, write_atomic
from ssr_lib.study import provenance

if TYPE_CHECKING:
    from ssr_lib.study.artefacts import Study

KEY = ["dataset", "network", "reranker", "seed", "difficulty", "measure", "chosen"]
SCORES = [*KEY[:-1], "query", "group", "value", "chosen"]
ROWS = [*KEY[:-1], "value", "low", "high", "n", "chosen", "spec"]
TEXT = [*KEY[:3], *KEY[4:], "group", "spec"]
GROUP = "group"  # the measure of a line of the wide file that holds the groups of a dataset's queries
DECIMALS = 4  # of a score: a hundredth of a point of AP


def chosen_text(parameters: Mapping | str | None) -> str:
    """What validation chose as JSON text, keys sorted; "" for nothing."""
    if isinstance(parameters, str):
        return parameters
    return json.dumps(dict(parameters), sort_keys=True, ensure_ascii=False, default=float) if parameters else ""


def per_query(
    values: Mapping[str, np.ndarray],
    benchmark: Benchmark,
    *,
    dataset: str,
    network: str,
    reranker: str = "none",
    seed: int | None = None,
    chosen: Mapping | None = None,
    measure: str = "AP",
) -> pd.DataFrame:
    """Scores of one ranking, a line a query: `values` {difficulty: (Q,)}, NaN for a query without positives.

    Difficulties at which no query has a value are left out. Raises `ValueError` for another number of values.
    """
    frames = [pd.DataFrame(columns=SCORES)]
    for difficulty, found in values.items():
        if np.shape(found) != (len(benchmark),):
            raise ValueError(
                f"{difficulty}: values of shape {np.shape(found)}; wanted ({len(benchmark)},), one a query"
            )
        key = (dataset, network, reranker, seed, difficulty, measure, chosen_text(chosen))
        scores = {"query": range(len(benchmark)), "group": benchmark.groups, "value": found}
        if not np.isnan(found).all():
            frames.append(pd.DataFrame(scores | dict(zip(KEY, key, strict=True))))
    return _of_kinds(pd.concat(frames[1:] or frames), SCORES)


def _of_kinds(frame: pd.DataFrame, columns: list[str]) -> pd.DataFrame:
    """The frame with all of `columns` in their order: text never missing, seeds whole numbers or missing."""
    frame = frame.reindex(columns=columns).reset_index(drop=True)
    text = [column for column in columns if column in TEXT]
    whole = [column for column in columns if column in ("seed", "n")]
    frame = frame.astype(dict.fromkeys(text, object)).fillna(dict.fromkeys(text, ""))
    return frame.astype(dict.fromkeys(text, str) | dict.fromkeys(whole, "Int64") | {"value": float})


def summarise(scores: pd.DataFrame, *, resamples: int, seed: int) -> pd.DataFrame:
    """Rows of scores: one a training with its interval over groups and, of several trainings, one with an empty seed."""
    rows = []
    by = [column for column in KEY if column != "seed"]
    for key, lines in scores.groupby(by, sort=False):
        groups = lines.drop_duplicates("query").set_index("query")["group"]
        parts = list(lines.groupby("seed", sort=False, dropna=False))
        for number, part in parts if len(parts) == 1 else [*parts, (pd.NA, lines)]:
            values = part.pivot(index="seed", columns="query", values="value")
            row = _interval(values.to_numpy(float), groups[values.columns].to_numpy(), resamples, seed)
            rows.append(dict(zip(by, key, strict=True)) | {"seed": number} | row)
    return _of_kinds(pd.DataFrame(rows, columns=ROWS), ROWS)


def _interval(values: np.ndarray, groups: np.ndarray, resamples: int, seed: int) -> dict[str, float]:
    """Mean and interval of values (S, Q); no interval where fewer than two groups have values."""
    known = ~np.isnan(values).all(axis=0)
    if len(set(groups[known])) < 2:
        return {"value": np.nanmean(values), "n": known.sum()}
    found = significance.mean_interval(values, groups, resamples, seed)
    return {"value": found.estimate, "low": found.ci_low, "high": found.ci_high, "n": known.sum()}


def matrix(
    scores: pd.DataFrame,
    *,
    network: str,
    reranker: str = "none",
    difficulty: str = "medium",
    dataset: str = "drawn",
    measure: str = "AP",
    chosen: Mapping | None = None,
) -> pd.DataFrame:
    """The values (S, Q) of one network and re-ranker, seeds as index and queries as columns: pairs of them are compared.

    `chosen`: of several settings of the re-ranker the one wanted. Raises `ValueError` where there are none or several.
    """
    wanted = {"dataset": dataset, "network": network, "reranker": reranker, "difficulty": difficulty}
    wanted |= {"measure": measure} | ({} if chosen is None else {"chosen": chosen_text(chosen)})
    found = scores[np.logical_and.reduce([scores[column] == value for column, value in wanted.items()])]
    if found.empty:
        raise ValueError(f"no scores of {', '.join(f'{column} {value}' for column, value in wanted.items())}")
    if found["chosen"].nunique() > 1:
        raise ValueError(
            f"{network}, {reranker} has settings {', '.join(found['chosen'].unique())}; name one as `chosen`"
        )
    return found.pivot(index="seed", columns="query", values="value")


def groups(scores: pd.DataFrame, dataset: str = "drawn") -> np.ndarray:
    """The group of each query (Q,) of a dataset."""
    return scores[scores["dataset"] == dataset].drop_duplicates("query").sort_values("query")["group"].to_numpy()


# ---- files


def write(study: Study, scores: pd.DataFrame | None, figures: pd.DataFrame | None) -> pd.DataFrame:
    """Replace rows/<notebook>.csv and per_query/<notebook>.csv.gz, and return the rows; run.json says what made them.

    `figures`: further rows, such as costs. Raises `ValueError` for unknown columns and where two lines are one figure.
    """
    if study.notebook is None:
        raise ValueError('rows belong to a notebook; open the study with its name: Study(…, notebook="05_ablation")')
    scores = pd.DataFrame(columns=SCORES) if scores is None else scores.assign(value=scores["value"].round(DECIMALS))
    further = pd.DataFrame(columns=ROWS) if figures is None else figures
    if unknown := [column for column in further if column not in ROWS]:
        raise ValueError(f"figures have columns {', '.join(unknown)}; legal are {', '.join(ROWS)}")
    _once_each(scores, [*KEY, "query"])
    statistics = study.profile.statistics
    table = summarise(scores, resamples=statistics.resamples, seed=statistics.seed)
    table = pd.concat([table.replace({"measure": {"AP": "mAP"}}), _of_kinds(further, ROWS)], ignore_index=True)
    _once_each(table, KEY)
    table["spec"] = [_spec(study, *names) for names in zip(table["network"], table["reranker"], strict=True)]
    path, name = study.results_dir, study.notebook
    write_atomic(path / "rows" / f"{name}.csv", table.to_csv(index=False, lineterminator="\n", float_format="%.6g"))
    write_atomic(path / "per_query" / f"{name}.csv.gz", gzip.compress(_wide(scores).encode(), mtime=0))
    made_by = _made_by(study, name) | {"commit": provenance.commit()}
    provenance.update(path / "run.json", rows={name: made_by})
    return table


def _once_each(frame: pd.DataFrame, key: list[str]) -> None:
    if (twice := frame.duplicated(key)).any():
        line = frame.loc[twice, key].iloc[0].to_dict()
        raise ValueError(f"two lines are the same figure: {', '.join(f'{k} {v}' for k, v in line.items() if v != '')}")


def _spec(study: Study, network: str, reranker: str) -> str:
    """A digest of what the profile says of a network and a re-ranker; "" where it says nothing."""
    profile = study.profile
    said = [profile.spec(network).model_dump() if network in profile.networks else None]
    said.append(profile.rerankers[reranker].model_dump() if reranker in profile.rerankers else None)
    return digest(said)[:8] if any(said) else ""


def _made_by(study: Study, notebook: str) -> dict[str, str]:
    profile = digest(study.profile.model_dump(exclude={"title", "notebooks"}))[:12]
    return {"profile": profile, "code": provenance.code_of(notebook)}


def _wide(scores: pd.DataFrame) -> str:
    """Scores as CSV, a column a query, 4 decimals, after a line a dataset with the groups of its queries."""
    lines = []
    for dataset in scores["dataset"].unique():
        lines.append({"dataset": dataset, "measure": GROUP} | dict(enumerate(groups(scores, dataset))))
    for key, part in scores.groupby(KEY, sort=False, dropna=False):
        cells = ["" if np.isnan(value) else f"{value:.{DECIMALS}f}" for value in part["value"]]
        lines.append(dict(zip(KEY, key, strict=True)) | dict(zip(part["query"], cells, strict=True)))
    columns = [*KEY, *sorted(scores["query"].unique())]
    return pd.DataFrame(lines, columns=columns).to_csv(index=False, lineterminator="\n")


def _long(data: bytes) -> pd.DataFrame:
    """The scores that `_wide` wrote."""
    wide = pd.read_csv(io.BytesIO(gzip.decompress(data)), dtype=str, keep_default_na=False)
    named = wide[wide["measure"] == GROUP].set_index("dataset").drop(columns=KEY[1:])
    scores = wide[wide["measure"] != GROUP].melt(KEY, var_name="query")
    scores["group"] = named.stack().reindex(pd.MultiIndex.from_frame(scores[["dataset", "query"]])).to_numpy()
    scores = scores[scores["group"] != ""].astype({"query": int})
    scores[["seed", "value"]] = scores[["seed", "value"]].apply(pd.to_numeric)
    return _of_kinds(scores, SCORES)


def read(study: Study, notebook: str, kind: str) -> pd.DataFrame:
    """The "rows" or the "per_query" scores of a notebook, as they were written.

    Raises `ValueError` with the command to run where they are not there, or where another profile or other code of the
    notebook made them; rows of another commit of the library are taken, and the commit is printed.
    """
    path = study.results_dir / kind / (f"{notebook}.csv" if kind == "rows" else f"{notebook}.csv.gz")
    command = f"`ssr study --profile {study.source} --notebook {notebook}`, with the same workspace and changes"
    made_by = (read_json(study.results_dir / "run.json") or {}).get("rows", {}).get(notebook, {})
    if not path.is_file() or not made_by:
        raise ValueError(f"{path} is not there; run {command}")
    wanted = _made_by(study, notebook)
    other = [what for what in wanted if made_by.get(what) != wanted[what]]
    if other:
        raise ValueError(f"{path} was made by another {' and '.join(other)} than today's; run {command} again")
    if made_by.get("commit") != provenance.commit():
        print(f"The rows of {notebook} were made by commit {made_by.get('commit')} of the library.")
    return _of_kinds(pd.read_csv(path, keep_default_na=True), ROWS) if kind == "rows" else _long(path.read_bytes())
