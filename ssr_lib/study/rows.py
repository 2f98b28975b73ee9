"""Measured figures as tidy frames: scores by query, rows with their intervals, and both as files of a notebook."""

import gzip
import json
from pathlib import Path

import numpy as np
import pandas as pd

from ssr_lib import significance
from ssr_lib.files import digest, read_json, write_atomic
from ssr_lib.study import provenance

KEY = ["dataset", "network", "reranker", "seed", "difficulty", "measure", "chosen"]
SCORES = [*KEY[:-1], "query", "group", "value", "chosen"]
ROWS = [*KEY[:-1], "value", "low", "high", "n", "chosen", "spec"]
NUMBERS = dict.fromkeys(("seed", "query", "n"), "Int64") | dict.fromkeys(("value", "low", "high"), float)


def per_query(values, benchmark, *, dataset, network, reranker="none", seed=None, chosen=None, measure="AP"):
    """The scores of one ranking as a frame, a line a query: `values` {difficulty: (Q,)}, NaN without positives;
    `chosen`: the re-ranker's parameters. Difficulties at which no query has a value are left out."""
    key = {"dataset": dataset, "network": network, "reranker": reranker, "seed": seed, "measure": measure}
    key["chosen"] = json.dumps(dict(chosen), sort_keys=True, ensure_ascii=False, default=float) if chosen else ""
    key |= {"query": range(len(benchmark)), "group": benchmark.groups}
    known = {difficulty: found for difficulty, found in values.items() if not np.isnan(found).all()}
    frames = [pd.DataFrame(key | {"difficulty": difficulty, "value": found}) for difficulty, found in known.items()]
    return _of_kinds(pd.concat(frames) if frames else pd.DataFrame(), SCORES)


def _of_kinds(frame: pd.DataFrame, columns: list[str]) -> pd.DataFrame:
    """The frame with all of `columns` in their order: text never missing, seeds whole numbers or missing."""
    frame = frame.reindex(columns=columns).reset_index(drop=True)
    text = frame.columns.difference(list(NUMBERS))
    frame[text] = frame[text].astype(object).fillna("").astype(str)
    return frame.astype({column: kind for column, kind in NUMBERS.items() if column in columns})


def summarise(scores: pd.DataFrame) -> pd.DataFrame:
    """Rows of scores: one a training with its interval over groups; of several also one over all, with no seed."""
    rows, by = [], [column for column in KEY if column != "seed"]
    for key, lines in scores.groupby(by, sort=False):
        parts = list(lines.groupby("seed", sort=False, dropna=False))
        for seed, part in parts if len(parts) == 1 else [*parts, (pd.NA, lines)]:
            known = part.dropna(subset="value")
            row = dict(zip(by, key, strict=True)) | {"seed": seed, "value": known["value"].mean()}
            row["n"] = known["query"].nunique()
            if known["group"].nunique() > 1:
                values = part.pivot(index="seed", columns="query", values="value").to_numpy(float)  # (S, Q)
                found = significance.mean_interval(values, groups(part, row["dataset"]))
                row |= {"value": found.estimate, "low": found.ci_low, "high": found.ci_high}
            rows.append(row)
    return _of_kinds(pd.DataFrame(rows), ROWS)


def matrix(scores, *, network, reranker="none", difficulty="medium", dataset="drawn", measure="AP"):
    """The values (S, Q) of one network and one setting of a re-ranker, a frame: seeds down, queries across."""
    wanted = [dataset, network, reranker, difficulty, measure]
    found = scores[(scores[["dataset", "network", "reranker", "difficulty", "measure"]] == wanted).all(axis=1)]
    if found["chosen"].nunique() != 1:
        settings = "; ".join(found["chosen"].unique()) or "none"
        raise ValueError(f"wanted scores of one setting of {', '.join(wanted)}; there are {settings}")
    return found.pivot(index="seed", columns="query", values="value")


def groups(scores: pd.DataFrame, dataset: str = "drawn") -> np.ndarray:
    """The group of each query (Q,) of a dataset."""
    return scores[scores["dataset"] == dataset].drop_duplicates("query").sort_values("query")["group"].to_numpy()


def write(study, scores: pd.DataFrame | None, figures: pd.DataFrame | None = None) -> None:
    """Replace rows/<notebook>.csv and per_query/<notebook>.csv.gz; run.json says what made them. Tables and figures of
    before are removed. `figures`: further rows. Raises `ValueError` for unknown columns and two lines of one figure."""
    scores, further = _of_kinds(pd.DataFrame(scores).round({"value": 4}), SCORES), pd.DataFrame(figures)
    if unknown := [column for column in further if column not in ROWS]:
        raise ValueError(f"figures have columns {', '.join(unknown)}; legal are {', '.join(ROWS)}")
    scores.set_index([*KEY, "query"], verify_integrity=True)
    table = pd.concat([summarise(scores), _of_kinds(further, ROWS)], ignore_index=True)
    table["measure"] = table["measure"].replace("AP", "mAP")
    table.set_index(KEY, verify_integrity=True)
    for (network, reranker), lines in table.groupby(["network", "reranker"]).groups.items():
        said = study.profile.networks.get(network), study.profile.rerankers.get(reranker)
        known = [line.model_dump() for line in said if line is not None]
        table.loc[lines, "spec"] = digest(known)[:8] if known else ""
    folder, name = study.results_dir, study.notebook
    write_atomic(folder / "rows" / f"{name}.csv", table.to_csv(index=False, lineterminator="\n", float_format="%.6g"))
    first = scores.drop_duplicates(["dataset", "query"])[["dataset", "query", "group"]].assign(measure="group")
    lines = pd.concat([first.rename(columns={"group": "value"}), scores])[[*KEY, "query", "value"]]
    lines = lines.astype(object).fillna("").set_index([*KEY, "query"])["value"].unstack(fill_value="", sort=False)
    by_query = lines.to_csv(lineterminator="\n", float_format="%.4f").encode()
    write_atomic(folder / "per_query" / f"{name}.csv.gz", gzip.compress(by_query, mtime=0))
    recorded, made_by = _made_by(study, name)
    for left in set(recorded.get("files", ())) - study.written:
        for file in folder.glob(f"{left}.*"):
            file.unlink()
    made_by |= {"commit": provenance.commit(), "files": sorted(study.written)}
    provenance.update(folder / "run.json", rows={name: made_by})


def _made_by(study, notebook: str) -> tuple[dict, dict[str, str]]:
    """What run.json says of the rows of a notebook, and the digests of profile and code of now."""
    recorded = (read_json(study.results_dir / "run.json") or {}).get("rows", {}).get(notebook, {})
    profile = study.profile.model_dump(exclude={"title", "notebooks", "reads", "report"})  # what makes no figure
    return recorded, {"profile": digest(profile)[:12], "code": digest(provenance.source_of(notebook, ["code"]))[:12]}


def read_rows(study, notebook: str) -> pd.DataFrame:
    """The rows of a notebook; `ValueError` with the command to run where its profile or code is not that of now."""
    kinds = {column: NUMBERS.get(column, str) for column in ROWS}  # a landmark may be called 007, or NA
    path = _current(study, notebook, f"rows/{notebook}.csv")
    return pd.read_csv(path, dtype=kinds, keep_default_na=False, na_values=dict.fromkeys(NUMBERS, ""))


def read_scores(study, notebook: str) -> pd.DataFrame:
    """The scores of a notebook, a line a query; refused as by `read_rows`."""
    path = _current(study, notebook, f"per_query/{notebook}.csv.gz")
    wide = pd.read_csv(path, dtype=str, keep_default_na=False).set_index(KEY).rename_axis(columns="query")
    lines = wide.stack().rename("value").reset_index()
    first = lines[(lines["measure"] == "group") & (lines["value"] != "")].rename(columns={"value": "group"})
    scores = lines[lines["measure"] != "group"].merge(first[["dataset", "query", "group"]], on=["dataset", "query"])
    scores[["seed", "query", "value"]] = scores[["seed", "query", "value"]].apply(pd.to_numeric)
    return _of_kinds(scores, SCORES)


def _current(study, notebook: str, file: str) -> Path:
    path, (recorded, made_by) = study.results_dir / file, _made_by(study, notebook)
    if not path.is_file() or any(recorded.get(what) != value for what, value in made_by.items()):
        command = f"ssr study --profile {study.source} --notebook {notebook}"
        fault = f"{path} is not there, or of another profile or code than now"
        raise ValueError(f"{fault}; run `{command}`, with the same workspace and changes")
    if recorded["commit"] != provenance.commit():
        print(f"The rows of {notebook} were made by commit {recorded['commit']} of the library.")
    return path
