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
from ssr_lib.study.artefacts import Study
from ssr_lib.study.choose import NAMES, resampling, variants_of


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
    """First minus second over the seeds that both have, with its interval and p-value."""
    (a, groups, seeds_a), (b, _, seeds_b) = values(study, first, dataset), values(study, second, dataset)
    common = np.intersect1d(seeds_a, seeds_b)
    a, b = a[np.isin(seeds_a, common)], b[np.isin(seeds_b, common)]
    return significance.paired_difference(a, b, groups, **resampling(study))


def add_difference(
    study: Study, found: significance.Difference, first: Cell, second: Cell, claim: str, dataset: str = "synthetic"
) -> None:
    """Store a difference, its interval and its p-value as figures of experiment "claims"."""
    key = {
        "experiment": "claims",
        "dataset": dataset,
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


def differences_table(study: Study, pairs: dict[str, tuple[Cell, Cell]], dataset: str) -> pd.DataFrame:
    """Named differences between two cells each, stored and as a table in points."""
    rows = []
    for name, (first, second) in pairs.items():
        found = paired(study, first, second, dataset)
        add_difference(study, found, first, second, name, dataset)
        rows.append(as_row(name, found))
    study.results.save()
    return pd.DataFrame(rows)


def component_differences(study: Study, regime: str | None = None, dataset: str = "synthetic") -> pd.DataFrame:
    """Medium mAP: the module minus each other variant, for each re-ranking, in points."""
    pairs, regime = {}, regime or study.regime
    for method in ("none", "ours", "alpha_qe_dba"):
        for other in variants_of(study, regime):
            if other != "self-similarity":
                cells = (Cell(rerank=method, regime=regime), Cell(other, method, regime=regime))
                pairs[f"self-similarity − {other}, {NAMES[method]}"] = cells
    return differences_table(study, pairs, dataset)


def rerank_differences(study: Study, dataset: str = "synthetic") -> pd.DataFrame:
    """Medium mAP with self-similarity: our re-ranking minus every other method, in points."""
    ours = Cell(rerank="ours", experiment="rerank")
    others = [m for m in ("none", *study["rerank.candidates"]) if m != "ours"]
    pairs = {f"ours − {NAMES[m]}": (ours, Cell(rerank=m, experiment="rerank")) for m in others}
    return differences_table(study, pairs, dataset)


def interaction_table(study: Study, dataset: str = "synthetic") -> pd.DataFrame:
    """Do the parts help each other? Medium mAP: what re-ranking adds to the module less what it adds to another variant.

    Above 0 they add more together than apart; around 0 they just add up. Described, without a verdict.
    """
    rows = []
    for method in ("ours", "alpha_qe_dba"):
        for other in study["comparison.variants"]:
            if other == "self-similarity":
                continue
            cells = [Cell(v, m, regime=study.regime) for v in ("self-similarity", other) for m in (method, "none")]
            (both, groups, seeds), *rest = (values(study, cell, dataset) for cell in cells)
            common = sorted(set(seeds).intersection(*(found for _, _, found in rest)))
            both, second, first, neither = (
                ap[np.isin(found, common)] for ap, _, found in ((both, groups, seeds), *rest)
            )
            found = significance.interaction(both, first, second, neither, groups, **resampling(study))
            name = f"gain by {NAMES[method]}, self-similarity − {other}"
            add_difference(study, found, cells[0], cells[2], name, dataset)
            rows.append(as_row(name, found))
    study.results.save()
    return pd.DataFrame(rows)


# ---- the table of claims


@dataclass(frozen=True)
class Claim:
    """A sentence of the abstract, the statistic fixed for it, and the cells it compares: claimed is first > second.

    With `beside` both first > second and first > beside are claimed: the less favourable of the two stands for the claim.
    """

    claim: str
    statistic: str
    first: Cell
    second: Cell
    primary: bool = False
    beside: Cell | None = None


PUBLISHED_ON = ("roxford5k", "rparis6k")
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
        "structure where nothing else identifies a landmark",
        "Medium mAP, module − control, both trained on re-skinned views",
        *(Cell(v, regime="reskinned") for v in ("self-similarity", "neighbour")),
    ),
    Claim(
        "structure where nothing else identifies a landmark",
        "Medium mAP of re-skinned queries, module − control, both trained on re-skinned views",
        *(
            Cell(v, experiment="claims", subset="reskinned", regime="reskinned")
            for v in ("self-similarity", "neighbour")
        ),
    ),
    Claim(
        "both parts help together",
        "Medium mAP, both − re-ranking alone (plain) and both − module alone: the smaller",
        Cell(rerank="ours"),
        Cell("plain", "ours"),
        beside=SS,
    ),
    Claim("re-ranking improves mAP", "Medium mAP, ours − none", Cell(rerank="ours"), SS),
    Claim("re-ranking improves mAP", "Medium mAP, ours − αQE + DBA", Cell(rerank="ours"), Cell(rerank="alpha_qe_dba")),
    Claim(
        "re-ranking improves mAP",
        "Medium mAP, ours − SuperGlobal",
        *(Cell(rerank=m, experiment="rerank") for m in ("ours", "superglobal")),
    ),
    Claim(
        "as accurate as re-ranking with local features (cost: notebook 08)",
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


def share_kept(study: Study, claim: Claim, dataset: str = "synthetic") -> significance.Difference:
    """Difference of the shares of mAP that two variants keep on other query forms: mAP there over mAP on ordinary queries.

    Interval and p-value are those of the linearised ratios (delta method): query by query
    share + (AP there − share · AP) / mAP, whose mean is the share.
    """
    kept, seeds = [], []
    for cell in (claim.first, claim.second):
        (other, groups, found), (ordinary, _, _) = (
            values(study, c, dataset) for c in (cell, replace(cell, subset="all"))
        )
        mean = np.nanmean(ordinary)
        share = np.nanmean(other) / mean
        kept.append(share + (other - share * ordinary) / mean)
        seeds.append(found)
    common = np.intersect1d(*seeds)
    kept = [rows[np.isin(found, common)] for rows, found in zip(kept, seeds, strict=True)]
    return significance.paired_difference(*kept, groups, **resampling(study))


def not_testable(study: Study, claim: Claim, dataset: str) -> str | None:
    """Why a claim cannot be tested on a dataset: it needs drawn queries, or a network that the profile has not; else None."""
    cells = [cell for cell in (claim.first, claim.second, claim.beside) if cell is not None]
    drawn = any(c.subset != "all" or c.difficulty in ("twins", "doubles") or c.regime == "reskinned" for c in cells)
    if dataset != "synthetic" and drawn:
        return "drawn landmarks only"
    missing = {c.variant for c in cells if c.variant not in variants_of(study, c.regime)}
    if missing:
        return f"the profile has no {', '.join(sorted(missing))}"
    if any(c.regime == "reskinned" for c in cells) and not study["comparison.reskinned_seeds"]:
        return "the profile does not train on re-skinned views"
    return None


def weigh(study: Study, claim: Claim, dataset: str) -> tuple[significance.Difference, Cell, Cell]:
    """The difference that a claim stands or falls with, and the two cells it lies between."""
    first, second, beside = (
        cell and (replace(cell, regime=study.regime) if cell.regime == "ordinary" else cell)
        for cell in (claim.first, claim.second, claim.beside)
    )
    if SHARE in claim.statistic:
        return share_kept(study, replace(claim, first=first, second=second), dataset), first, second
    if beside is None:
        return paired(study, first, second, dataset), first, second
    both = [(paired(study, first, other, dataset), first, other) for other in (second, beside)]
    found, first, other = min(both, key=lambda one: one[0].ci_low)
    return replace(found, p=max(one[0].p for one in both)), first, other


def claims_table(study: Study, dataset: str = "synthetic") -> pd.DataFrame:
    """One row a claim: difference, interval, Holm-corrected p (the primary's is its own) and verdict."""
    rows, found = [], {}
    for i, claim in enumerate(CLAIMS):
        if reason := not_testable(study, claim, dataset):
            row = {"comparison": f"{claim.statistic} ({reason})", "verdict": "not tested here"}
        else:
            found[i], first, second = weigh(study, claim, dataset)
            add_difference(study, found[i], first, second, claim.statistic, dataset)
            row = as_row(claim.statistic, found[i], 1 if claim.first.difficulty == "false positives" else 100)
        rows.append({"claim": claim.claim, **row})
    table = pd.DataFrame(rows)
    # a comparison of single trainings gets no verdict: it has no part in the correction, and a p-value would mislead
    secondary = [i for i in found if not CLAIMS[i].primary and found[i].n_seeds > 1]
    table.loc[[i for i in found if found[i].n_seeds < 2], "p"] = np.nan
    table.loc[secondary, "p"] = significance.holm(table.loc[secondary, "p"].to_numpy(float))
    for i, difference in found.items():
        corrected = None if CLAIMS[i].primary else table.loc[i, "p"]
        table.loc[i, "verdict"] = significance.verdict(difference, adjusted_p=corrected)
    study.results.save()
    published = dataset in PUBLISHED_ON
    last = {
        "claim": "better than existing methods on ROxford5k and RParis6k",
        "comparison": "beside published figures" if published else "profile `paper` only",
        "verdict": "see notebook 10" if published else "not tested here",
    }
    table = pd.concat([table, pd.DataFrame([last])], ignore_index=True)
    return table.astype({"seeds": "Int64", "landmarks": "Int64"} if found else {})
