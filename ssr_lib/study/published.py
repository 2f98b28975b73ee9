"""Figures of other papers on ROxford5k and RParis6k (data/published.csv), and this study's own in the same columns.

mAP is in percent here, as papers print it. What the columns of the file mean is said in data/README.md.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from ssr_lib.images import PRESETS
from ssr_lib.study.artefacts import Study
from ssr_lib.study.choose import NAMES
from ssr_lib.study.profile import data_file
from ssr_lib.study.provenance import repository_root
from ssr_lib.weights import read_record

SETS = {"roxford5k": "roxf", "rparis6k": "rpar"}
FIGURES = [*(f"{short}_{letter}" for short in SETS.values() for letter in "EMH")]
FIGURES += ["roxf1m_M", "roxf1m_H", "rpar1m_M", "rpar1m_H"]
CONDITIONS = ["method", "variant", "backbone", "train_set", "dim", "descriptor", "rerank", "inputs", "query_crop"]
COLUMNS = ["kind", *CONDITIONS, *FIGURES, "source", "where", "read_in", "also_in", "note"]
KEY = ["kind", "method", "variant", "backbone", "train_set", "rerank", "query_crop", "source"]
LEGAL = {
    "kind": ("published", "reference output", "user run"),
    "descriptor": ("global", "local"),
    "query_crop": ("yes", "no", ""),
    "read_in": ("readme", "image", "issue", "paper", "second hand"),
}
N_DISTRACTORS = 1_001_001  # of revisitop1m: the only larger database that published figures are measured on
OF_RERANKING = ("k", "alpha", "exponent", "beta", "shortlist")  # chosen for each dataset: they may differ within a row


def read_published(path: Path | str | None = None) -> pd.DataFrame:
    """The table of published figures: `FIGURES` float64 in percent (NaN: not given), `dim` Int64, all else text.

    `path` None is data/published.csv. Raises `ValueError` naming the line of the file and the column for missing columns,
    a figure that is no percentage, Easy below Medium or Medium below Hard, a row without figures, without method or
    source, a value that `LEGAL` does not list, and two rows with the same `KEY`.
    """
    path = Path(path or repository_root() / "data" / "published.csv")
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    if list(table.columns) != COLUMNS:
        raise ValueError(f"{path} has columns {', '.join(table.columns)}; wanted {', '.join(COLUMNS)}")

    def refuse(wrong: pd.Series, column: str, wanted: str) -> None:
        if wrong.any():
            row = wrong.idxmax()
            raise ValueError(f"{path}, line {row + 2}, column {column}: {table.at[row, column]!r}; {wanted}")

    numbers = table[[*FIGURES, "dim"]].apply(pd.to_numeric, errors="coerce")
    for column in FIGURES:
        refuse((table[column] != "") & ~numbers[column].between(0, 100), column, "wanted percent from 0 to 100")
    refuse((table["dim"] != "") & ~(numbers["dim"] % 1 == 0), "dim", "wanted a whole number of dimensions")
    for column, legal in LEGAL.items():
        refuse(~table[column].isin(legal), column, f"wanted one of {', '.join(map(repr, legal))}")
    for column in ("method", "source"):
        refuse(table[column].str.strip() == "", column, "every row has one")
    refuse(table.duplicated(KEY), "method", f"an earlier row has the same {', '.join(KEY)}")
    refuse(numbers[FIGURES].isna().all(axis=1), FIGURES[0], "the row has no figure")
    for short in SETS.values():
        given = numbers[[f"{short}_{letter}" for letter in "EMH"]].ffill(axis=1)  # what is not given is in order
        for easier, harder in zip(given.columns, given.columns[1:], strict=False):
            refuse(given[harder] > given[easier], harder, f"it lies above {easier}; are columns mixed up?")
    return table.assign(**numbers).astype({"dim": "Int64"})


def measured_rows(study: Study) -> pd.DataFrame:
    """What `study` measured on ROxford5k and RParis6k: a row for each network and re-ranking, in `COLUMNS`.

    mAP in percent over all queries of the test split; trainings of one network are averaged. Empty in a profile on other
    pictures: no figure of drawn landmarks or of other photographs ever stands in this table.
    """
    experiments = ["components", "rerank", "backbones", "sweep"]
    frame = study.results.frame(experiment=experiments, dataset=list(SETS), metric="mAP")
    frame = frame[(frame["split"] == "test") & (frame["subset"] == "all")]
    frame = frame[frame["variant"] != "all"]  # trials of re-ranking parameters are no results
    params = [json.loads(text) for text in frame["params"]]
    # A mean over trainings is formed again from them; a network that comes as a checkpoint has no seed and one row.
    whole = [
        "seeds" not in p and "queries" not in p and p.get("distractors") == (N_DISTRACTORS if swept else None)
        for p, swept in zip(params, frame["experiment"] == "sweep", strict=True)
    ]
    own = pd.DataFrame(
        [_own_figure(row, p) for row, p, keep in zip(frame.itertuples(), params, whole, strict=True) if keep],
        columns=["backbone", "variant", "rerank", "network", "dataset", "choice", "seed", "figure", "value"],
    ).drop_duplicates(["backbone", "variant", "rerank", "network", "choice", "seed", "figure"])  # two experiments
    own, rows = own[own["figure"].isin(FIGURES)], []
    for (backbone, variant, rerank, network), some in own.groupby(own.columns[:4].tolist(), sort=False):
        choices = some.groupby("dataset", sort=False)["choice"].unique()
        parts = [some] if choices.map(len).max() == 1 else [part for _, part in some.groupby("choice", sort=False)]
        for part in parts:
            rows.append(_conditions(study, backbone, variant, rerank, json.loads(network), int(part["seed"].iloc[0])))
            rows[-1] |= part.groupby("figure")["value"].mean().to_dict() | {"note": _note(part)}
    return pd.DataFrame(rows, columns=COLUMNS).astype(dict.fromkeys(FIGURES, "float64") | {"dim": "Int64"})


def _own_figure(row, params: dict) -> dict:
    """One row of results, its value in percent and its parameters told apart: the network's, and the re-ranking's."""
    choice = {"k": None if pd.isna(row.k) else int(row.k), "alpha": None if pd.isna(row.alpha) else row.alpha} | params
    return {
        "backbone": row.backbone,
        "variant": row.variant,
        "rerank": row.rerank,
        "network": json.dumps({k: v for k, v in params.items() if k not in (*OF_RERANKING, "distractors")}),
        "dataset": row.dataset,
        "choice": ", ".join(f"{name} {choice[name]:g}" for name in OF_RERANKING if choice.get(name) is not None),
        "seed": -1 if pd.isna(row.seed) else int(row.seed),
        "figure": f"{SETS[row.dataset]}{'1m' if 'distractors' in params else ''}_{row.difficulty[0].upper()}",
        "value": 100 * row.value,
    }


def _conditions(study: Study, backbone: str, variant: str, rerank: str, network: dict, seed: int) -> dict:
    """The columns of a measured row that say how it was made; queries are always cropped to their boxes.

    Training set and dimension are those that the checkpoint's record names, where the network is one.
    """
    train_set, dim = network.get("regime", ""), study["model.descriptor_dim"]
    if "checkpoint" in network:
        record = read_record(data_file(network["checkpoint"].replace("{seed}", str(seed)) + ".safetensors"))
        train_set, dim = record["extra"].get("trained_on", ""), record["config"]["descriptor_dim"]
    within = " in the shortlist" if network.get("neighbourhood") == "shortlist" else ""
    preset = PRESETS.get(study["extraction.preset"])
    size = study["extraction.size"] or (preset and preset.size)
    scales = preset and "scales " + ", ".join(f"{scale:.4g}" for scale in preset.scales)
    inputs = [f"{size} px" if size else "", scales or f"as {network.get('checkpoint', 'the backbone')} was prepared"]
    return dict.fromkeys(COLUMNS, "") | dict.fromkeys(FIGURES) | {
        "kind": "measured here",
        "method": variant,
        "variant": network.get("checkpoint", ""),
        "backbone": re.sub(r"^resnet(?=\d)", "ResNet", backbone),
        "train_set": train_set,
        "dim": dim,
        "descriptor": "global",
        "rerank": NAMES.get(rerank, rerank) + within,
        "inputs": ", ".join(filter(None, inputs)),
        "query_crop": "yes",
        "source": "this study",
        "where": f"results/{study.name}/results.csv",
    }  # fmt: skip


def _note(part: pd.DataFrame) -> str:
    """The re-ranking parameters chosen for each dataset, and the number of trainings."""
    choice = dict(zip(part["dataset"], part["choice"], strict=True))
    notes = [f"{choice[dataset]} on {dataset}" for dataset in SETS if choice.get(dataset)]
    seeds = part["seed"].nunique()
    return "; ".join([*notes, f"mean of {seeds} trainings"] if seeds > 1 else notes)


# ---- tables


def side_by_side(published: pd.DataFrame, measured: pd.DataFrame, difficulty: str) -> pd.DataFrame:
    """Measured rows among the published ones of the same backbones, best on ROxford5k first; mAP in percent.

    `difficulty`: "easy", "medium" or "hard". Figures with the million distractors have columns
    of their own where there are any. User runs stay out, and rows without a figure. Without measured rows the
    table is empty. Raises `ValueError` for another difficulty.
    """
    if difficulty not in ("easy", "medium", "hard"):
        raise ValueError(f"no difficulty {difficulty!r}; there are easy, medium and hard")
    letter = difficulty[0].upper()
    figures = {f"{short}_{letter}": dataset for dataset, short in SETS.items()}
    larger = {f"{short}1m_{letter}": f"{dataset} + 1M" for dataset, short in SETS.items() if letter != "E"}
    others = published[(published["kind"] != "user run") & published["backbone"].isin(set(measured["backbone"]) - {""})]
    rows = pd.concat([part for part in (others, measured) if len(part)] or [published[:0]])
    larger = {figure: name for figure, name in larger.items() if rows[figure].notna().any()}
    rows = rows.dropna(subset=[*figures, *larger], how="all").rename(columns=figures | larger)
    rows = rows.sort_values(["backbone", "roxford5k"], ascending=[True, False], kind="stable", ignore_index=True)
    return rows[
        [
            "backbone",
            *figures.values(),
            *larger.values(),
            "kind",
            "method",
            "variant",
            "train_set",
            "dim",
            "rerank",
            "inputs",
            "query_crop",
            "source",
        ]
    ]


def best_of(table: pd.DataFrame, by: Sequence[str], figure: str = "roxf_M") -> pd.DataFrame:
    """The row with the highest `figure` of each group, highest first, and in `rows` how many the group has."""
    given = table.dropna(subset=[figure])
    best = given.loc[given.groupby(list(by))[figure].idxmax()]
    counts = given.groupby(list(by)).size().rename("rows").reset_index()
    return best.merge(counts, on=list(by)).sort_values(figure, ascending=False, kind="stable", ignore_index=True)


def contrast(table: pd.DataFrame, column: str, first: str, second: str, same: Sequence[str]) -> pd.DataFrame:
    """What `second` instead of `first` in `column` goes with: best minus best, in points, where the columns `same` agree.

    One row for each combination of `same` that has both: columns `same`, then Medium and Hard of `FIGURES`.
    """
    figures = [figure for figure in FIGURES if not figure.endswith("E")]
    best = {value: table[table[column] == value].groupby(list(same))[figures].max() for value in (first, second)}
    return (best[second] - best[first]).dropna(how="all").reset_index()


def contrasts(table: pd.DataFrame) -> pd.DataFrame:
    """What the conditions of the published rows go with: `contrast` for depth, training set, crop, re-ranking, user runs.

    Columns: `condition` (second − first), `within` (what else agrees), then Medium and Hard of `FIGURES` in points.
    """
    cropped = table[(table["query_crop"] != "no") & (table["kind"] != "user run")]
    first = cropped[(cropped["descriptor"] == "global") & (cropped["rerank"] == "none")]
    network = ["method", "backbone", "train_set", "source"]
    wanted = {
        "training set: GLDv2-clean − SfM-120k": (first, "train_set", "SfM-120k", "GLDv2-clean", ["backbone"]),
        "training set: GLDv2-clean − GLDv1": (cropped, "train_set", "GLDv1", "GLDv2-clean", ["method", "variant", "backbone", "rerank"]),
        "training set: GLDv1 − SfM-120k": (first, "train_set", "SfM-120k", "GLDv1", ["method", "backbone"]),
        "depth: ResNet101 − ResNet50": (first, "backbone", "ResNet50", "ResNet101", ["method", "variant", "train_set", "source"]),
        "re-ranking: spatial verification − none": (cropped, "rerank", "none", "spatial verification", network),
        "query: whole − cropped": (table[table["kind"] != "user run"], "query_crop", "yes", "no", network),
        "who ran it: a user − the authors": (table, "kind", "published", "user run", ["method", "backbone", "rerank", "query_crop"]),
    }  # fmt: skip
    parts = []
    for condition, (rows, column, one, other, same) in wanted.items():
        part = contrast(rows, column, one, other, same)
        within = part[same].agg(lambda row: ", ".join(cell for cell in row if cell), axis=1)
        parts.append(part.drop(columns=same).assign(condition=condition, within=within))
    return pd.concat(parts, ignore_index=True)[["condition", "within", *parts[0].columns.drop(["condition", "within"])]]
