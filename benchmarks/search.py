"""Speed of `search` as ratios to torch and faiss in the same process, with the memory that a call takes on top.

    python benchmarks/search.py [queries images dimension graph]

Ratios are time here / time there: below 1 is faster. Both take turns, so that a busy machine slows both; the least of
several rounds counts. 70 x 4,993 x 2,048 is the size of ROxford5k; `graph` images of 512 dimensions search themselves.
"""

import csv
import os
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import torch

from ssr_lib.search import knn, prepare, rank


def best_seconds(*functions, rounds=3):
    """The least seconds of each function, called in turn so that a busy machine slows all of them."""
    seconds = [float("inf")] * len(functions)
    for _ in range(rounds):
        for i, function in enumerate(functions):
            start = time.perf_counter()
            function()
            seconds[i] = min(seconds[i], time.perf_counter() - start)
    return seconds


def report(what, seconds, there, note="", against="plain", goal="", megabytes=float("nan")):
    """Print a measurement; `make bench` names a table in BENCH_TABLE, to which it is added."""
    if "BENCH_TABLE" in os.environ:
        with open(os.environ["BENCH_TABLE"], "a", newline="", encoding="utf-8") as file:
            csv.writer(file).writerow([what, seconds, there, note, against, goal, megabytes])
    compared = f"{against:22} {1e3 * there:9.1f} ms   ratio {seconds / there:5.2f} (goal {goal or '-':4})   "
    if np.isnan(there):
        compared = ""
    print(f"{what:42} {1e3 * seconds:9.1f} ms   {compared}{megabytes:5.0f} MB   {note}", flush=True)


def peak_megabytes(function):
    """The memory that a call takes on top, at its most; NaN where Linux does not tell."""
    status, clear = Path("/proc/self/status"), Path("/proc/self/clear_refs")
    if not clear.exists():
        return float("nan")
    clear.write_text("5")  # the peak starts again from what is held now

    def kilobytes(key):
        return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith(key))

    before = kilobytes("VmRSS:")
    function()
    return max(0, kilobytes("VmHWM:") - before) / 1024


def compare(name, ours, there, reference, goal, rounds=7):
    """One line of the table: seconds of both, their ratio, the ratio that is wanted at most, and our peak memory."""
    memory = peak_megabytes(ours)
    reference()
    here, other = best_seconds(ours, reference, rounds=rounds)
    report(name, here, other, against=there, goal=goal, megabytes=memory)


def draw(n_queries=70, n=4993, dimension=2048, seed=0):
    """Unit descriptors of 300 classes: queries (Q, D) and database (N, D), float32."""
    rng = np.random.default_rng(seed)
    centres, both = rng.standard_normal((300, dimension), np.float32), []
    for labels in (np.arange(n_queries) % 300, rng.integers(300, size=n)):
        x = centres[labels] + rng.standard_normal((len(labels), dimension), np.float32)
        both.append(x / np.linalg.norm(x, axis=1, keepdims=True))
    return both


def main(n_queries=70, n=4993, dimension=2048, graph=100_000):
    import faiss  # after torch, as in ssr_lib.search

    def flat(q, x, k):
        return faiss.knn(q, x, k, metric=faiss.METRIC_INNER_PRODUCT)

    queries, database = draw(n_queries, n, dimension)
    q, x, prepared = torch.from_numpy(queries), torch.from_numpy(database), (prepare(queries), prepare(database))

    def plain():
        return (q @ x.T).sort(dim=1, descending=True, stable=True)

    print(f"{n_queries:,} queries, {n:,} images of {dimension:,} dimensions, {torch.get_num_threads()} threads")
    print(f"places of `rank` equal to those of float32: {(rank(queries, database) == plain()[1].numpy()).mean():.2%}")
    compare("rank", lambda: rank(queries, database), "torch, stable sort", plain, 2)
    compare("rank, prepared", lambda: rank(*prepared), "torch, stable sort", plain, 2)
    for k in (10, 50):
        ours, there = partial(knn, queries, database, k), partial(flat, queries, database, k)
        compare(f"knn, k {k}", ours, "faiss", there, 2)
    compare("knn, k 10, prepared", lambda: knn(*prepared, 10), "faiss", lambda: flat(queries, database, 10), 2)
    for k, goal in ((10, 1.2), (50, 1.2), (400, 1.5)):
        ours, there = lambda k=k: knn(database, database, k), lambda k=k: flat(database, database, k)
        compare(f"knn of the database, k {k}", ours, "faiss", there, goal, rounds=3)
    some = graph // 25  # a slice of the graph: all of it takes a minute
    _, database = draw(1, graph, 512)
    ours, there = lambda: knn(database[:some], database, 10), lambda: flat(database[:some], database, 10)
    compare(f"graph, {some:,} of {graph:,} x 512", ours, "faiss", there, 1.2, rounds=3)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
