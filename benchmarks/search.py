"""Speed of `search` as ratios: how many times longer the plain way takes in the same process, and whether it agrees.

    python benchmarks/search.py

70 queries and 4,993 database images of 2,048 dimensions, the size of ROxford5k. Plain: float64 cosines, sorted.
"""

import time

import numpy as np

from ssr_lib.search import knn, rank


def best_seconds(*functions, rounds=3):
    """The least seconds of each function, called in turn so that a busy machine slows all of them."""
    seconds = [float("inf")] * len(functions)
    for _ in range(rounds):
        for i, function in enumerate(functions):
            start = time.perf_counter()
            function()
            seconds[i] = min(seconds[i], time.perf_counter() - start)
    return seconds


def report(name, ours, plain, agreement=""):
    """One line: what, seconds of both, how many times faster."""
    print(f"{name:38} {ours:8.3f} s   plain {plain:8.3f} s   x {plain / ours:6.2f}   {agreement}")


def draw(n_queries=70, n=4993, dimension=2048, seed=0):
    """Unit descriptors of 300 classes: queries (Q, D) and database (N, D), float32."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((300, dimension))
    make = lambda labels: centres[labels] + rng.standard_normal((len(labels), dimension))
    both = make(np.arange(n_queries) % 300), make(rng.integers(300, size=n))
    return tuple((x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32) for x in both)


def plain_rank(queries, database):
    """Full rankings by float64 cosines."""
    return np.argsort(-(queries.astype(np.float64) @ database.astype(np.float64).T), axis=1, kind="stable")


def main():
    queries, database = draw()
    agree = f"{(rank(queries, database) == plain_rank(queries, database)).mean():.2%} of places equal"
    report("rank", *best_seconds(lambda: rank(queries, database), lambda: plain_rank(queries, database)), agree)
    plain = lambda: plain_rank(queries, database)[:, :10]
    for backend in ("torch", "faiss"):
        ours = lambda backend=backend: knn(queries, database, 10, backend=backend)
        agree = f"{(ours()[1] == plain()).mean():.2%} of places equal"
        report(f"knn, k 10, {backend}", *best_seconds(ours, plain), agree)
    everyone = np.arange(len(database))
    ours, plain = lambda: knn(database, database, 10, exclude=everyone), lambda: plain_rank(database, database)
    report("knn of the database in itself", *best_seconds(ours, plain, rounds=1))


if __name__ == "__main__":
    main()
