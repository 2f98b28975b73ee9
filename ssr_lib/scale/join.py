"""The exact k-NN join of stored descriptors, and re-ranking by it: to the bit what is found in memory.

Query block × database shard → `search.knn` → the k best by (−score, id). Merging such lists is associative, and no
block changes a score (see `search.codes`), so shards may come in any order. float16 rows count as they were rounded.
"""

import hashlib
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from ssr_lib.rerank import _augmented
from ssr_lib.rerank._augmented import NeighbourSum
from ssr_lib.scale.descriptors import Shards
from ssr_lib.scale.engine import one_machine
from ssr_lib.search import knn
from ssr_lib.search.prepared import Prepared, as_pair, check_integer, own_ids


def knn_join(
    queries: Shards, database: Shards, k: int, folder: Path | str, *, own=None, device="cpu", engine=one_machine
) -> Shards:
    """The k database rows most similar to each query, (Q, 2, k) float64: scores and ids, best first.

    `own` (Q,) int64: for each query a database id that is left out of its list, −1 for none. Raises `ValueError` for
    shards that are missing, damaged or foreign, ids and k beyond the database, and a `folder` of another join.
    """
    check_integer(k, "k", 1, len(database) - (own is not None), "the rows of the database, without the own one")
    q, d = (Prepared(rows, torch.empty(0), True, True) for rows in (queries, database))  # to be checked, not read
    own_ids(own, *as_pair(q, d))
    left_out = None if own is None else hashlib.sha256(np.asarray(own, np.int64)).hexdigest()
    made_by = {"queries": queries.name(), "database": database.name(), "own": left_out}
    found = Shards(folder, made_by, (len(queries), 2, k), "float64", queries.per_shard)
    count = len(database.keys)

    def nearest(piece: int) -> np.ndarray:
        block, shard = divmod(piece, count)
        q = queries.prepared(device).take(queries.rows(block))
        d = database.prepared(device).take(database.rows(shard))
        scores, ids = knn(q, d, min(k + (own is not None), len(d)))  # one more, for the own image
        ids += database.rows(shard).start
        if own is not None:
            scores[ids == np.asarray(own)[queries.rows(block), None]] = -np.inf
        return np.stack([scores, ids], axis=1)

    pieces = [block * count + shard for block in found.missing() for shard in range(count)]
    best, answered = {}, np.zeros(len(found.keys), int)  # of blocks in work the list so far; of each, how many shards
    for piece, near in tqdm(engine(nearest, pieces), Path(folder).name, len(pieces), unit="piece", disable=None):
        block = piece // count
        both = np.concatenate([best.get(block, near[:, :, :0]), near], axis=2)
        order = np.lexsort((both[:, 1], -both[:, 0]))[:, :k]  # by (−score, id)
        best[block] = np.take_along_axis(both, order[:, None], axis=2)
        answered[block] += 1
        if answered[block] == count:
            found.write(block, best.pop(block))
    return found


def refine(
    rows: Shards, database: Shards, how: NeighbourSum, folder: Path | str, *, engine=one_machine, **options
) -> Shards:
    """Rows (N, D) float32 that each took in their k nearest of the database, once; arguments: as for `knn_join`."""
    near = knn_join(rows, database, how.k, Path(folder, "neighbours"), engine=engine, **options)
    refined = Shards(Path(folder, "rows"), {"of": near.name(), **asdict(how)}, rows.shape, "float32", rows.per_shard)

    def rows_of(shard: int) -> np.ndarray:
        scores, ids = torch.from_numpy(near[rows.rows(shard)]).unbind(1)  # (n, k)
        x = rows.prepared().take(rows.rows(shard))
        return _augmented.refine(x, database.prepared(), None, how, (scores, ids.long())).data.numpy()

    return refined.fill(rows_of, engine)


def augment_database(database: Shards, how: NeighbourSum, folder: Path | str, **options) -> Shards:
    """`rerank.augment_database` of one round: the join with the database as queries."""
    return refine(database, database, how, folder, own=np.arange(len(database)), **options)


def global_rerank(
    queries: Shards, database: Shards, how: NeighbourSum, top: int, folder: Path | str, *, own=None, **options
) -> Shards:
    """The first `top` places of `rerank.global_rerank`, as `knn_join` gives them; every step lies below `folder`.

    `own`, `options`: as for `knn_join`, which makes αQE of `refine`d queries and DBA of `augment_database`.
    """
    check_integer(how.k, "k", 1, len(database) - 1, "the rows of the database other than the one itself")
    check_integer(top, "top", 1, len(database) - (own is not None), "the rows of the database, without the own one")
    for number in range(how.rounds):
        place = Path(folder, f"round-{number + 1}")
        queries = refine(queries, database, how, place / "queries", own=own, **options)  # first: short, and checks them
        database = augment_database(database, how, place / "database", **options)
    return knn_join(queries, database, top, Path(folder, "ranks"), own=own, **options)
