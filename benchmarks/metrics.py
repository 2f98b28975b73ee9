"""Speed and memory of `metrics` beside plain ways (see search.py).

python benchmarks/metrics.py [images, each a query]
"""

import sys
import time

import numpy as np
import torch
from search import best_seconds, compare, draw, peak_megabytes, report

from ssr_lib.metrics import evaluate
from ssr_lib.search import prepare, rank
from ssr_lib.search.codes import IDS, as_codes, first_codes


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


def lists(rng, n, count=150):
    """Easy, hard and junk of one query: distinct ids below n."""
    return dict(zip(("easy", "hard", "junk"), np.split(rng.permutation(n)[:count], 3), strict=True))


def main(n=20_000):
    rng = np.random.default_rng(0)
    ranks = np.stack([rng.permutation(4993) for _ in range(70)])
    truth = [lists(rng, 4993) for _ in ranks]
    ours, plain = lambda: evaluate(ranks, truth), lambda: plain_average_precision(ranks, truth)
    agree = f"largest difference {np.abs(np.stack(list(ours().ap.values())) - plain()).max():.1e}"
    report("evaluate, 70 x 4,993", *best_seconds(ours, plain), agree)

    million, truth = 1_000_000, [lists(rng, 1_000_000)]
    sums, ids = torch.from_numpy(rng.integers(2**36, size=(1, million)) * 2.0**16), torch.arange(million)
    stable, ours = (
        lambda: sums.argsort(dim=1, descending=True, stable=True),
        lambda: first_codes(as_codes(sums.clone(), ids), million),
    )
    order = (ours() & IDS).numpy()
    assert np.array_equal(order, stable().numpy())
    compare("order of 1,000,000 scores", ours, "stable argsort", stable, 0.2)
    compare("places among 1,000,000", lambda: evaluate(order, truth), "stable argsort", stable, 0.1)

    _, database = draw(1, n, 512)
    prepared, truth, step = prepare(database), [lists(rng, n, 30) for _ in range(n)], max(1, 2**24 // n)
    start = time.perf_counter()
    blocks = (rank(database[i : i + step], prepared) for i in range(0, n, step))
    memory = peak_megabytes(lambda: evaluate(blocks, truth))
    seconds = time.perf_counter() - start
    report(f"rank and evaluate, {n:,} x {n:,} x 512", seconds, np.nan, "goal 600 MB", megabytes=memory)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
