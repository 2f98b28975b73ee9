"""Galleries of labelled pictures on which parameters of re-rankers are chosen, as different as those to come."""

from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from ssr_lib.benchmark import Benchmark
from ssr_lib.rerank import first_ranking
from ssr_lib.search import prepare


def folds(labels: Sequence, count: int) -> np.ndarray:
    """The fold, 0 … `count` − 1, of each picture (N,): landmarks are dealt out at random, each as a whole."""
    landmarks, which = np.unique(labels, return_inverse=True)
    return (np.random.default_rng(0).permutation(len(landmarks)) % count)[which]


def galleries(labels: np.ndarray, how) -> list[tuple[int, np.ndarray, np.ndarray, Benchmark]]:
    """Galleries of training pictures with landmarks (N,), as the section `photographs` of a profile says: of each its
    fold, ids of queries (Q,) and of database pictures (M,), and the benchmark. Ids from N on are distractors.

    Of each landmark of a fold R pictures join the database, R drawn evenly on a logarithmic scale, and up to
    `how.asked` others are queries. Raises `ValueError` where no landmark of a fold has two pictures.
    """
    fold, made = folds(labels, how.folds), []
    for draw in range(how.folds * how.galleries):
        rng, number = np.random.default_rng([draw, 3]), draw % how.folds
        queries, database, easy = [], [], []
        for landmark in np.unique(labels[fold == number]):
            own = rng.permutation(np.flatnonzero(labels == landmark))
            right = min(round(np.exp(rng.uniform(*np.log(how.positives)))), len(own) - 1)
            others = own[right:][: how.asked] if right > 0 else own[:0]
            easy += [range(len(database), len(database) + right)] * len(others)
            database += own[: max(right, 0)].tolist()
            queries += others.tolist()
        if not queries:
            raise ValueError(f"no training landmark of fold {number} has two pictures; a gallery needs that")
        database += range(len(labels), len(labels) + how.distractors)
        names, none = ([str(i) for i in ids] for ids in (database, queries)), [[]] * len(queries)
        benchmark = Benchmark(f"gallery {draw}", Path("."), *names, easy, none, none, groups=labels[queries].tolist())
        made.append((number, np.array(queries), np.array(database), benchmark))
    return made


def ranked(queries: np.ndarray, database: np.ndarray, benchmark: Benchmark) -> tuple:
    """Queries (Q, D), database (N, D) prepared, their first ranking and the benchmark: what parameters are tried on."""
    database = prepare(database)
    return queries, database, first_ranking(queries, database), benchmark


def fitted(parameters: dict[str, Any], benchmark: Benchmark) -> dict[str, Any]:
    """The parameters with a shortlist of no more images than the database has."""
    shortlist = parameters.get("shortlist")
    return parameters if shortlist is None else parameters | {"shortlist": min(shortlist, len(benchmark.database))}


def views(made: list[tuple], sizes: Sequence[int], descriptors: Callable[..., np.ndarray]) -> list[tuple]:
    """`ranked` galleries at every size; `descriptors`: (fold, size, ids) → (n, D), learned on other folds."""
    asked = []
    for (fold, queries, database, gallery), size in product(made, sizes):
        asked.append(ranked(descriptors(fold, size, queries), descriptors(fold, size, database), gallery))
    return asked
