"""Speed of `metrics` and `significance` as ratios to loops over queries and resamples (see search.py).

python benchmarks/metrics.py
"""

import numpy as np
from search import best_seconds, report

from ssr_lib.metrics import evaluate
from ssr_lib.significance import mean_interval


def plain_average_precision(ranks, truth):
    """AP of each query under the three protocols, by set operations and loops, one query after the other."""
    values = []
    for positive, ignored in ((["easy"], ["junk", "hard"]), (["easy", "hard"], ["junk"]), (["hard"], ["junk", "easy"])):
        for row, query in zip(ranks, truth, strict=True):
            ok, junk = (np.concatenate([query[key] for key in keys]) for keys in (positive, ignored))
            places = np.arange(len(row))[np.isin(row, ok)]
            places = places - np.searchsorted(np.arange(len(row))[np.isin(row, junk)], places)
            shares = [((j / p if p else 1) + (j + 1) / (p + 1)) / 2 for j, p in enumerate(places)]
            values.append(sum(shares) / len(ok) if len(ok) else np.nan)
    return np.reshape(values, (3, -1))


def plain_interval(values, groups, n_resamples):
    """Bootstrap of groups and seeds, one resample after the other."""
    rng, names, means = np.random.default_rng(0), np.unique(groups), []
    for _ in range(n_resamples):
        queries = np.concatenate([np.flatnonzero(groups == name) for name in rng.choice(names, len(names))])
        means.append(values[rng.choice(len(values), len(values))][:, queries].mean())
    return np.quantile(means, [0.025, 0.975])


def main():
    rng = np.random.default_rng(0)
    ranks = np.stack([rng.permutation(4993) for _ in range(70)])
    truth = [
        dict(zip(("easy", "hard", "junk"), np.split(rng.permutation(4993)[:150], [50, 100]), strict=True))
        for _ in ranks
    ]
    ours, plain = lambda: evaluate(ranks, truth), lambda: plain_average_precision(ranks, truth)
    agree = f"largest difference {np.abs(np.stack(list(ours().ap.values())) - plain()).max():.1e}"
    report("evaluate, 70 x 4,993", *best_seconds(ours, plain), agree)

    values, groups = rng.random((5, 400)), np.repeat(np.arange(200), 2)
    ours, plain = best_seconds(
        lambda: mean_interval(values, groups), lambda: plain_interval(values, groups, 100), rounds=2
    )
    report("mean_interval, 10,000 (plain: 100 x 100)", ours, plain * 100)


if __name__ == "__main__":
    main()
