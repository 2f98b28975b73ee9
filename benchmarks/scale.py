"""Stored descriptors past memory: exact graphs, a million at once, what float16 costs, and the live index.

    python benchmarks/scale.py [share]

Every part runs in a process of its own; memory is what the system counts on top of the library's at the most. The
growth of graphs is extrapolated to sizes that were not measured; that says nothing about disks and networks, which 100 M
images would need. `share`: of the images of each part, 1 unless given; 0.01 takes a minute.
"""

import sys
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from search import peak_megabytes, report

from ssr_lib.metrics import evaluate
from ssr_lib.rerank import first_ranking
from ssr_lib.rerank._augmented import NeighbourSum, refine
from ssr_lib.scale.descriptors import Shards, store_rows
from ssr_lib.scale.join import augment_database, knn_join
from ssr_lib.scale.live import FILE, LiveIndex
from ssr_lib.search import knn, prepare, rank

DIMENSION, K, PER_SHARD = 256, 10, 8192


def draw(n, seed=0, noise=1.0):
    """Unit rows (n, D) around 300 centres, and the centre of each; with more noise rows of a centre are less alike."""
    centres = np.random.default_rng(0).standard_normal((300, DIMENSION), np.float32)
    rng = np.random.default_rng([seed, 1])
    labels = rng.integers(300, size=n)
    x = centres[labels] + np.float32(noise) * rng.standard_normal((n, DIMENSION), np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True), labels


def stored(place, n):
    shards = Shards(Path(place, "rows"), {}, (n, DIMENSION), "float16", PER_SHARD)
    return shards.fill(lambda i: draw(len(range(n)[shards.rows(i)]), i)[0])


def told(name, function):
    """The seconds of a call, told with the memory that it takes on top."""
    start = time.perf_counter()
    megabytes = peak_megabytes(function)
    seconds = time.perf_counter() - start
    report(name, seconds, float("nan"), megabytes=megabytes)
    return seconds


def graph(n, augmented=False):
    with TemporaryDirectory() as place:
        x = stored(place, n)
        if augmented:
            how = NeighbourSum(K, 0.5)
            return told(f"augment_database of {n:,}", lambda: augment_database(x, how, Path(place, "work")))
        return told(f"graph of {n:,}", lambda: knn_join(x, x, K, Path(place, "near"), own=np.arange(n)))


def among(n):
    """8,192 queries, and the ranking and evaluation of 70, among n images."""
    with TemporaryDirectory() as place:
        x, q = stored(place, n), store_rows(Path(place, "queries"), draw(PER_SHARD, n)[0], PER_SHARD)
        told(f"{PER_SHARD:,} queries among {n:,}", lambda: knn_join(q, x, K, Path(place, "near")))
        rng = np.random.default_rng(0)
        truth = [{"easy": rng.permutation(n)[:30], "hard": [], "junk": []} for _ in range(70)]
        queries, database = q[:70], x.prepared()
        ranks = (first_ranking(queries[i : i + 10], database).ids for i in range(0, 70, 10))
        told(f"evaluation of 70 among {n:,}", lambda: evaluate(ranks, truth))


def float16(n):
    (x, labels), start = draw(n, noise=2.0), time.perf_counter()
    own, found = np.arange(min(n, 2000)), []
    for rows in (x, x.astype(np.float16).astype(np.float32)):
        truth = [{"easy": np.flatnonzero(labels == labels[i]), "hard": [], "junk": []} for i in range(200)]
        near = knn(rows[own], rows, K, exclude=own)[1]
        found.append((near, evaluate(rank(rows[:200], rows), truth).map["medium"]))
    (exact, before), (near, after) = found
    recall = (near[:, :, None] == exact[:, None]).any(axis=2).mean()
    note = f"{recall:.4%} of {K} neighbours stay; mAP {after:.4%}, in float32 {before:.4%}"
    report(f"neighbours and mAP in float16, {n:,}", time.perf_counter() - start, float("nan"), note)


def live(n, kind):
    (own, _), (queries, _) = draw(n), draw(200, n)
    start = time.perf_counter()
    index = LiveIndex.build({str(i): row for i, row in enumerate(own)}, kind=kind)
    built = time.perf_counter() - start
    start = time.perf_counter()
    refined = refine(prepare(queries), prepare(own), None, index.how).features()
    exact = knn(refined, index.vectors["augmented"], K)[1]
    there = (time.perf_counter() - start) / len(queries)
    for effort in (1, 4):
        start = time.perf_counter()
        lists = [index.search(query, K, effort=effort) for query in queries]
        here = (time.perf_counter() - start) / len(queries)
        right = [name in map(str, ids) for found, ids in zip(lists, exact, strict=True) for name, _ in found]
        name, note = f"live {kind}, {n:,}, effort {effort}", f"recall@{K} {np.mean(right):.4f}"
        report(name, here, there, note, "exact, all at once")
    with TemporaryDirectory() as place:
        index.save(place)
        size = Path(place, FILE).stat().st_size / n
    start = time.perf_counter()
    index.update({f"new {i}": row for i, row in enumerate(draw(100, n + 1)[0])}, [str(i) for i in range(100)])
    seconds, note = time.perf_counter() - start, f"built in {built:.0f} s, {size:,.0f} bytes a picture"
    report(f"live {kind}, {n:,}: 100 come, 100 go", seconds, float("nan"), note)


def main(share=1.0):
    sizes = [int(share * n) for n in (10_000, 50_000, 200_000)]
    parts = [(among, int(share * 100_000)), (among, int(share * 1_000_000)), (graph, sizes[1], True)]
    parts += [(float16, int(share * 50_000)), (live, int(share * 100_000), "HNSW32,SQ8")]
    parts += [(live, int(share * 100_000), "IVF256,PQ32np"), *((graph, n) for n in sizes)]
    for function, *arguments in parts:
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            seconds = pool.submit(function, *arguments).result()
        if function is graph and arguments == [sizes[0]]:
            first = seconds
    growth = np.log(seconds / first) / np.log(sizes[-1] / sizes[0])
    print(f"graphs grow as N^{growth:.2f} (a product of all with all: 2); extrapolated by N^2, not measured:")
    for n in (10**6, 10**8):
        print(f"{n:13,} images: {seconds * (n / sizes[-1]) ** 2 / 3600:,.1f} hours of this machine")


if __name__ == "__main__":
    main(*map(float, sys.argv[1:]))
