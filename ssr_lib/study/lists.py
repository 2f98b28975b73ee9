"""Single queries looked at: ranked lists before and after re-ranking, the best, the worst, and what stands in front of the positives."""

from __future__ import annotations

import numpy as np
import pandas as pd

from ssr_lib import metrics
from ssr_lib.benchmark import Benchmark
from ssr_lib.study import figures
from ssr_lib.study.artefacts import Study
from ssr_lib.study.choose import apply_reranking, choices
from ssr_lib.study.variants import Model


def rankings_and_ap(study: Study, model: Model, method: str, dataset: str) -> tuple[np.ndarray, np.ndarray]:
    """Rankings (Q, N) and Medium AP (Q,) of the test queries."""
    ranks = apply_reranking(method, *study.descriptors(model, dataset), choices(study, dataset)[method])[0]
    return ranks, metrics.evaluate(ranks, study.benchmark(dataset)).ap["medium"]


def before_and_after(study: Study, model: Model, dataset: str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Rankings and Medium AP without and with our re-ranking."""
    return {
        name: rankings_and_ap(study, model, method, dataset) for name, method in (("before", "none"), ("after", "ours"))
    }


def status_of(benchmark: Benchmark, query: int, ids: np.ndarray) -> list[str]:
    """ "right", "wrong" or "ignored" for each database id, by the Medium protocol."""
    right, ignored = {*benchmark.easy[query], *benchmark.hard[query]}, {*benchmark.junk[query]}
    return ["right" if i in right else "ignored" if i in ignored else "wrong" for i in ids]


def draw_lists(
    benchmark: Benchmark, query: int, rankings: dict[str, tuple[np.ndarray, np.ndarray]], path, top: int = 10
):
    """A picture of the first `top` of several rankings of one query."""
    rows = []
    for title, (ranks, ap) in rankings.items():
        ids = ranks[query, :top]
        rows.append(
            (
                f"{title}, AP {100 * ap[query]:.0f}",
                [benchmark.root / benchmark.database[i] for i in ids],
                None,
                status_of(benchmark, query, ids),
            )
        )
    return figures.ranked_lists(benchmark.root / benchmark.queries[query], rows, path)


def extreme_lists(study: Study, model: Model, dataset: str = "synthetic") -> dict[str, object]:
    """Pictures of the query that gains most and of the one that loses most by our re-ranking."""
    rankings = before_and_after(study, model, dataset)
    gain = rankings["after"][1] - rankings["before"][1]
    picks = {"gains most": int(np.nanargmax(gain)), "loses most": int(np.nanargmin(gain))}
    return {
        f"{name} ({100 * gain[q]:+.0f} points of AP)": draw_lists(
            study.benchmark(dataset), q, rankings, study.figure(f"lists_{name.split()[0]}.png", dataset)
        )
        for name, q in picks.items()
    }


def worst_queries(study: Study, model: Model, dataset: str = "synthetic", count: int = 8) -> pd.DataFrame:
    """The queries with the lowest Medium AP after our re-ranking, and what stands in front of their first positive."""
    benchmark = study.benchmark(dataset)
    ranks, ap = rankings_and_ap(study, model, "ours", dataset)
    rows = []
    for query in np.argsort(np.where(np.isnan(ap), np.inf, ap), kind="stable")[:count]:
        status = np.array(status_of(benchmark, query, ranks[query]))
        first = int(np.argmax(status == "right"))
        wrong = ranks[query][:first][status[:first] == "wrong"]
        row = {
            "query": int(query),
            "group": benchmark.groups[query],
            "AP (%)": round(100 * float(ap[query]), 2),
            "positives": len(benchmark.easy[query]) + len(benchmark.hard[query]),
            "of them hard": len(benchmark.hard[query]),
            "wrong before the first right": len(wrong),
        }
        if "twins" in benchmark.extra:
            row["of them twins"] = int(np.isin(wrong, benchmark.extra["twins"][query]).sum())
        rows.append(row)
    return pd.DataFrame(rows)


def worst_picture(study: Study, model: Model, worst: pd.DataFrame, dataset: str = "synthetic"):
    """The ranked list of the worst query, before and after our re-ranking."""
    rankings = before_and_after(study, model, dataset)
    return draw_lists(
        study.benchmark(dataset), int(worst["query"].iloc[0]), rankings, study.figure("worst_queries.png", dataset)
    )
