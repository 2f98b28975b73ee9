"""The claims of the abstract, each with the statistic fixed for it before the test (docs/method.md, section 6).

Everything here is computed from the average precisions in `per_query.csv.gz` and the rows of `results.csv`; nothing is
measured anew, so a verdict can be checked from the committed files alone.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from ssr_lib import significance
from ssr_lib.artefacts import Study
from ssr_lib.experiments import NAMES


@dataclass(frozen=True)
class Cell:
    """Where a value is looked up: one variant with one re-ranking on one form of the queries."""

    variant: str = "self-similarity"
    rerank: str = "none"
    experiment: str = "components"
    difficulty: str = "medium"
    subset: str = "all"
    regime: str = "ordinary"


def values(study: Study, cell: Cell, dataset: str = "synthetic") -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Per-query values (S, Q), groups (Q,) and seeds (S,) of a cell. Raises `ValueError` if the rows are not there."""
    frame = study.results.per_query(
        experiment=cell.experiment,
        dataset=dataset,
        split="test",
        subset=cell.subset,
        variant=cell.variant,
        rerank=cell.rerank,
        difficulty=cell.difficulty,
    )
    params = frame["params"].map(json.loads)
    frame = frame[[p.get("regime", cell.regime) == cell.regime for p in params]]
    if frame.empty:
        raise ValueError(f"no rows for {cell}; run the notebook that measures experiment {cell.experiment!r} first")
    table = frame.pivot(index="seed", columns="query", values="ap") if frame["seed"].notna().any() else frame[["ap"]].T
    groups = frame.drop_duplicates("query").sort_values("query")["group"].to_numpy()
    return table.to_numpy(float), groups, table.index.to_numpy()


def paired(study: Study, first: Cell, second: Cell, dataset: str = "synthetic") -> significance.Difference:
    """First minus second over the seeds that both have, with its interval and sign-flip p-value."""
    (a, groups, seeds_a), (b, _, seeds_b) = values(study, first, dataset), values(study, second, dataset)
    common = np.intersect1d(seeds_a, seeds_b)
    a, b = a[np.isin(seeds_a, common)], b[np.isin(seeds_b, common)]
    return significance.paired_difference(
        a, b, groups, n_resamples=study["statistics.resamples"], seed=study["statistics.seed"]
    )


def add_difference(study: Study, found: significance.Difference, first: Cell, second: Cell, claim: str) -> None:
    """Store a difference, its interval and its p-value as figures of experiment "claims"."""
    key = {
        "experiment": "claims",
        "dataset": "synthetic",
        "subset": first.subset,
        "backbone": study["model.backbone"],
        "variant": f"{first.variant} - {second.variant}",
        "rerank": f"{first.rerank} - {second.rerank}",
        "params": {"claim": claim, "regime": first.regime, "seeds": found.n_seeds},
    }
    interval = {"ci_low": found.ci_low, "ci_high": found.ci_high}
    study.results.add(**key, metric="difference", difficulty=first.difficulty, value=found.estimate, **interval)
    study.results.add(**key, metric="p_value", difficulty=first.difficulty, value=found.p, n_groups=found.n_groups)


def as_row(name: str, found: significance.Difference, factor: float = 100) -> dict:
    """A difference as a row of a table, in points."""
    return {
        "comparison": name,
        "difference": factor * found.estimate,
        "low": factor * found.ci_low,
        "high": factor * found.ci_high,
        "p": found.p,
        "seeds": found.n_seeds,
        "landmarks": found.n_groups,
    }


def differences_table(study: Study, pairs: dict[str, tuple[Cell, Cell]]) -> pd.DataFrame:
    """Named differences between two cells each, stored and as a table in points."""
    rows = []
    for name, (first, second) in pairs.items():
        found = paired(study, first, second)
        add_difference(study, found, first, second, name)
        rows.append(as_row(name, found))
    study.results.save()
    return pd.DataFrame(rows)


def component_differences(study: Study, regime: str = "ordinary") -> pd.DataFrame:
    """Medium mAP: the module minus each other variant, for each re-ranking, in points."""
    pairs = {}
    for method in ("none", "ours", "alpha_qe_dba"):
        for other in study["comparison.variants"]:
            if other != "self-similarity":
                cells = (Cell(rerank=method, regime=regime), Cell(other, method, regime=regime))
                pairs[f"self-similarity − {other}, {NAMES[method]}"] = cells
    return differences_table(study, pairs)


def rerank_differences(study: Study) -> pd.DataFrame:
    """Medium mAP with self-similarity: our re-ranking minus every other method, in points."""
    ours = Cell(rerank="ours", experiment="rerank")
    others = [m for m in ("none", *study["rerank.candidates"]) if m != "ours"]
    return differences_table(study, {f"ours − {NAMES[m]}": (ours, Cell(rerank=m, experiment="rerank")) for m in others})


# ---- the table of claims


@dataclass(frozen=True)
class Claim:
    """A sentence of the abstract, the statistic fixed for it, and the two cells it compares: claimed is first > second."""

    claim: str
    statistic: str
    first: Cell
    second: Cell
    primary: bool = False


SS, NEIGHBOUR = Cell(), Cell("neighbour")
SHARE = "share of Medium mAP kept"
CLAIMS = (
    Claim("self-similarity captures structure", "Medium mAP, module − neighbour control", SS, NEIGHBOUR, primary=True),
    Claim(
        "finer-grained retrieval",
        "Hard mAP, module − control",
        Cell(difficulty="hard"),
        Cell("neighbour", difficulty="hard"),
    ),
    Claim(
        "finer-grained retrieval",
        "AUC of positives against twins, module − control",
        *(Cell(v, experiment="claims", difficulty="twins") for v in ("self-similarity", "neighbour")),
    ),
    Claim(
        "finer-grained retrieval",
        "AUC of doubles against unrelated, module − control",
        *(Cell(v, experiment="claims", difficulty="doubles") for v in ("self-similarity", "neighbour")),
    ),
    *(
        Claim(
            "visual and structural information",
            f"{SHARE} under {form} queries, module − control",
            *(Cell(v, experiment="claims", subset=form) for v in ("self-similarity", "neighbour")),
        )
        for form in ("reskinned", "grey", "night")
    ),
    Claim(
        "both parts help together",
        "Medium mAP, module with ours − plain without re-ranking",
        Cell(rerank="ours"),
        Cell("plain"),
    ),
    Claim("re-ranking improves mAP", "Medium mAP, ours − none", Cell(rerank="ours"), SS),
    Claim("re-ranking improves mAP", "Medium mAP, ours − αQE + DBA", Cell(rerank="ours"), Cell(rerank="alpha_qe_dba")),
    Claim(
        "re-ranking improves mAP",
        "Medium mAP, ours − SuperGlobal",
        *(Cell(rerank=m, experiment="rerank") for m in ("ours", "superglobal")),
    ),
    Claim(
        "without the cost of local re-ranking",
        "Medium mAP, ours − SIFT + RANSAC on the same queries and shortlist",
        *(Cell(rerank=m, experiment="rerank", difficulty="local") for m in ("ours", "local")),
    ),
    Claim(
        "classes move apart",
        "AUC of pairs, after − before our re-ranking",
        *(Cell(rerank=m, experiment="claims", difficulty="pairs") for m in ("ours", "none")),
    ),
    Claim(
        "fewer false positives",
        "wrong images among the first R, before − after our re-ranking",
        *(Cell(rerank=m, experiment="rerank", difficulty="false positives") for m in ("none", "ours")),
    ),
)


def share_kept(study: Study, claim: Claim) -> significance.Difference:
    """Difference of the shares of mAP that two variants keep on other query forms: mAP there over mAP on ordinary queries.

    Interval and p-value are those of the linearised ratios (delta method): query by query
    share + (AP there − share · AP) / mAP, whose mean is the share.
    """
    kept, seeds = [], []
    for cell in (claim.first, claim.second):
        (other, groups, found), (ordinary, _, _) = values(study, cell), values(study, replace(cell, subset="all"))
        mean = np.nanmean(ordinary)
        share = np.nanmean(other) / mean
        kept.append(share + (other - share * ordinary) / mean)
        seeds.append(found)
    common = np.intersect1d(*seeds)
    kept = [rows[np.isin(found, common)] for rows, found in zip(kept, seeds, strict=True)]
    options = {"n_resamples": study["statistics.resamples"], "seed": study["statistics.seed"]}
    return significance.paired_difference(*kept, groups, **options)


def claims_table(study: Study) -> pd.DataFrame:
    """One row a claim: difference, interval, Holm-corrected p (the primary's is its own) and verdict."""
    rows, differences = [], []
    for claim in CLAIMS:
        found = share_kept(study, claim) if SHARE in claim.statistic else paired(study, claim.first, claim.second)
        add_difference(study, found, claim.first, claim.second, claim.statistic)
        factor = 1 if claim.first.difficulty == "false positives" else 100
        row = as_row(claim.statistic, found, factor)
        rows.append({"claim": claim.claim, **row})
        differences.append(found)
    table = pd.DataFrame(rows)
    secondary = np.array([not claim.primary for claim in CLAIMS])
    table.loc[secondary, "p"] = significance.holm(table.loc[secondary, "p"].to_numpy())
    table["verdict"] = [
        significance.verdict(found, adjusted_p=p) for found, p in zip(differences, table["p"], strict=True)
    ]
    study.results.save()
    not_tested = {
        "claim": "better than existing methods on ROxford5k and RParis6k",
        "comparison": "profile `paper` only",
        "verdict": "not tested here",
    }
    return pd.concat([table, pd.DataFrame([not_tested])], ignore_index=True)
