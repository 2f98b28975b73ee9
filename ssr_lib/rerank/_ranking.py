"""What the re-rankers share: the ranking they start from, the one they return, and the sum over neighbours."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch.nn.functional import embedding_bag

from ssr_lib.search import full_ranking, knn
from ssr_lib.search.prepared import PIECE, Array, Prepared, as_pair, blocks, check_integer, own_ids, row_norms

DEFAULT_SHORTLIST = 400  # SuperGlobal (Shao et al. 2023)


@dataclass(frozen=True)
class Ranking:
    """A first ranking: `ids` and `scores` (Q, N), best first; `own` (Q,): the queries' own database ids, -1 for none.

    With `own` for every query (Q, N − 1), without them; where only some have one, theirs is last, at score −inf.
    """

    ids: Array
    scores: Array
    own: Array | None = None


@dataclass(frozen=True)
class Reranking:
    """Rankings after a re-ranker.

    `ranks` (Q, N) int64, best first, and `scores`, in the form of a `Ranking`. Behind a shortlist the first ranking's
    order and scores stand, so scores need not fall across that border. `queries` (Q, D), `database` (N, D): the
    features that were ranked with, None where there is no one set of them, or where those of the database lie on a
    disk. `cost`: what a measuring re-ranker reports (seconds, bytes).
    """

    ranks: Array
    scores: Array
    queries: Array | None = None
    database: Array | None = None
    cost: dict[str, float] | None = None


@torch.no_grad()
def first_ranking(queries: Array | Prepared, database: Array | Prepared, own: Array | None = None) -> Ranking:
    """All database images of each query by cosine, best first; `own` (Q,): ids that are left out, -1 for none."""
    q, d = as_pair(queries, database)
    scores, ids = full_ranking(q, d, own_ids(own, q, d))
    return Ranking(q.like(ids), q.like(scores), own)


def rank_again(q: Prepared, d: Prepared, own: torch.Tensor | None) -> Reranking:
    """The ranking of queries in a database, one of them or both of new features."""
    scores, ids = full_ranking(q, d, own)
    return Reranking(q.like(ids), q.like(scores), q.features(), features_in_memory(d))


def features_in_memory(d: Prepared) -> Array | None:
    """A database's rows at unit length; None where they lie on a disk, from which a ranking reads them by the block."""
    return d.features() if isinstance(d.data, torch.Tensor) else None


def rank_by(scores: torch.Tensor, first: Ranking, q: Prepared) -> Reranking:
    """The ranking by scores (Q, N) of all database images; equal ones stand in the order of the first ranking."""
    ids, before = (torch.as_tensor(part).cpu() for part in (first.ids, first.scores))
    found = scores.cpu().double().gather(1, ids).masked_fill(before == -torch.inf, -torch.inf)  # the own image
    found, places = found.sort(dim=1, descending=True, stable=True)
    return Reranking(q.like(ids.gather(1, places).to(q.device)), q.like(found.to(q.device)))


def nearest(
    x: Prepared, d: Prepared, k: int, own: torch.Tensor | None, known: tuple[Array, Array] | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Scores and ids (n, k) of the nearest database images; `known`: those of k or more, found before."""
    known = knn(x, d, k, exclude=own) if known is None else known
    check_integer(k, "k", 1, len(d) - (own is not None), "the images of the database, without the own one")
    scores, ids = (torch.as_tensor(part, device=x.device) for part in known)
    if scores.shape != ids.shape or ids.ndim != 2 or len(ids) != len(x) or ids.shape[1] < k:
        raise ValueError(
            f"neighbours are {tuple(scores.shape)} and {tuple(ids.shape)}; wanted ({len(x)}, {k} or more) twice"
        )
    return scores[:, :k], ids[:, :k]


def add_neighbours(x: Prepared, d: Prepared, ids: torch.Tensor, weights: torch.Tensor) -> Prepared:
    """normalise(x_i + Σ_j w_ij d_j) of unit features, ids and weights (n, k), summed in that order: (n, D) float32."""
    out = torch.empty(x.data.shape, dtype=torch.float32, device=x.device)
    norms = torch.empty(len(x), dtype=torch.float64, device=x.device)
    in_place = d.is_unit and isinstance(d.data, torch.Tensor) and d.data.is_contiguous()
    for rows in blocks(len(x), PIECE // x.data.shape[1]):
        table, places = d.data, ids[rows]
        if not in_place:
            used, places = places.unique(return_inverse=True)
            table = d.unit(used)
        total = embedding_bag(places, table, mode="sum", per_sample_weights=weights[rows].float())
        total += x.unit(rows)
        lengths = row_norms(total)
        if not bool((usable := (lengths >= 1e-12) & lengths.isfinite()).all()):
            bad = rows.start + int((~usable).nonzero()[0])
            told = "and its neighbours cancel out or are too long; use a smaller alpha or similarity weights"
            raise ValueError(f"row {bad} {told}")
        norms[rows] = row_norms(torch.div(total, lengths.float()[:, None], out=out[rows]))
    return Prepared(out, norms, True, x.numpy)


def check_size(rows: int, database: Array | Prepared) -> None:
    """Raise `ValueError` where what `prepare` returned has `rows` images and the database another number of them."""
    if rows != len(database):
        raise ValueError(f"prepared has {rows} images and the database {len(database)}; prepare the same database")


def check_number(value: float, name: str, high: float = np.inf) -> None:
    """Raise `ValueError` unless `value` is a finite number from 0 to `high`."""
    if not isinstance(value, (int, float, np.number)) or not np.isfinite(value) or not 0 <= value <= high:
        wanted = "0 or more" if high == np.inf else f"from 0 to {high:g}"
        raise ValueError(f"{name} is {value!r}; wanted a finite number, {wanted}")


def check_shortlist(shortlist: int | None, available: int) -> int:
    """The length of the shortlist: what is asked for if it fits, by default 400 or all there is."""
    if shortlist is None:
        return min(DEFAULT_SHORTLIST, available)
    check_integer(shortlist, "shortlist", 1, available, "the images in a ranking")
    return int(shortlist)
