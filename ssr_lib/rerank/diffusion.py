"""Diffusion: similarity flows from a query along the graph of mutual neighbours, truncated around each image.

    W_ij = max(x_i · x_j, 0)^γ where i and j are among each other's `neighbours` nearest images, else 0
    A = I − α D^(−1/2) W D^(−1/2), D_ii = Σ_j W_ij
    z_i: the solution of A z = e_i among the `truncation` images nearest to i, zero elsewhere

`in_graph`: queries stand in the graph beside the database, so that the ranking of one depends on the others, and images
are ranked by z_q · z_j of unit length, as the public implementation of Yang et al. came to do. Otherwise, as in their
paper, the z_j are made once for a database, and a query's score is Σ_{j ∈ N_k(q)} max(q · x_j, 0)^γ z_j. Images that
the flow does not reach stay behind, in the order of the first ranking. Sources: Iscen et al., CVPR 2017, section 3;
Yang et al., AAAI 2019, section 3, whose implementation also stops conjugate gradients after 20 steps.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy import sparse
from scipy.sparse.linalg import cg

from ssr_lib.rerank._ranking import Ranking, Reranking, check_number, check_size, first_ranking, nearest, rank_by
from ssr_lib.search.prepared import Prepared, as_pair, check_integer, own_ids
from ssr_lib.search.prepared import prepare as prepared_rows

NEEDS = "descriptors"
TOLERANCE = 1e-6  # of the residual, relative
STEPS = 20  # of conjugate gradients


def laplacian(scores: np.ndarray, ids: np.ndarray, gamma: float, alpha: float) -> sparse.csr_array:
    """A (N, N) from the scores and ids (N, k) of the nearest others of each image."""
    n, k = ids.shape
    weights = np.maximum(scores.ravel(), 0) ** gamma
    w = sparse.csr_array((weights, (np.repeat(np.arange(n), k), ids.ravel())), shape=(n, n))
    w = w.minimum(w.T)  # zero unless each is among the other's; equal where both are
    inverse = sparse.diags_array(1 / np.sqrt(w.sum(axis=1) + 1e-12))
    return (sparse.eye_array(n) - alpha * inverse @ w @ inverse).tocsr()


def flows(x: Prepared, neighbours: int, truncation: int, gamma: float, alpha: float) -> sparse.csr_array:
    """z_i of every image as rows (N, N), with `truncation` numbers or fewer in each."""
    check_number(gamma, "gamma")
    check_number(alpha, "alpha", 0.9999)  # at 1 A cannot be inverted
    neighbours, truncation = min(neighbours, len(x) - 1), min(truncation, len(x))
    check_integer(neighbours, "neighbours", 1, len(x) - 1, "the images other than the one itself")
    check_integer(truncation, "truncation", 2, len(x), "the images")
    everyone = torch.arange(len(x), device=x.device)
    found = nearest(x, x, max(neighbours, truncation - 1), everyone)
    scores, ids = (part.cpu().numpy() for part in found)
    a = laplacian(scores[:, :neighbours], ids[:, :neighbours], gamma, alpha)
    around = np.column_stack([np.arange(len(x)), ids[:, : truncation - 1]])  # (N, truncation), itself first
    impulse = np.eye(1, truncation)[0]
    z = np.empty(around.shape)
    for i, places in enumerate(around):
        z[i] = cg(a[places][:, places], impulse, rtol=TOLERANCE, atol=0, maxiter=STEPS)[0]
    rows = np.repeat(np.arange(len(x)), truncation)
    return sparse.csr_array((z.ravel(), (rows, around.ravel())), shape=(len(x), len(x)))


def unit_rows(z: sparse.csr_array) -> sparse.csr_array:
    lengths = np.sqrt((z * z).sum(axis=1))
    return (sparse.diags_array(1 / lengths) @ z).tocsr()


def rerank(
    queries,
    database,
    first: Ranking | None,
    *,
    prepared: sparse.csr_array | None = None,
    k: int | None = None,
    neighbours: int = 50,
    truncation: int = 1000,
    gamma: float = 3.0,
    alpha: float = 0.99,
    in_graph: bool = True,
) -> Reranking:
    """The database in the order in which the flow from queries (Q, D) reaches it (N, D).

    `neighbours` and `truncation` are cut to what there is; `k` (10 by default) and `prepared` belong to what is not
    `in_graph`. A query that is a database image stands in the graph once. Raises `ValueError` as `search.knn`, for `k`
    with `in_graph`, `neighbours` below 1, `truncation` below 2, `gamma` below 0, and `alpha` below 0 or above 0.9999.
    """
    q, d = as_pair(queries, database)
    first = first_ranking(q, d) if first is None else first
    how = {"neighbours": neighbours, "truncation": truncation, "gamma": gamma, "alpha": alpha}
    own = own_ids(first.own, q, d)
    if in_graph:
        if k is not None:
            raise ValueError(f"k = {k}: diffusion in the graph has no k; leave it out")
        at = torch.full((len(q),), -1, device=q.device) if own is None else own
        new = at < 0  # the other queries stand in the database already
        z = unit_rows(flows(prepared_rows(torch.cat([q.unit()[new], d.unit()])), **how))
        places = torch.where(new, new.cumsum(dim=0) - 1, new.sum() + at).cpu().numpy()
        scores = (z[places] @ z[int(new.sum()) :].T).toarray()
    else:
        z = prepare(d, in_graph=False, **how) if prepared is None else prepared
        check_size(z.shape[0], d)
        similarity, ids = (part.cpu().numpy() for part in nearest(q, d, 10 if k is None else k, own))
        scores = np.zeros((len(q), len(d)))
        for i, weights in enumerate(np.maximum(similarity, 0) ** gamma):
            scores[i] = weights @ z[ids[i]]
    return rank_by(torch.from_numpy(scores), first, q)


def prepare(
    database,
    *,
    k: int | None = None,
    neighbours: int = 50,
    truncation: int = 1000,
    gamma: float = 3.0,
    alpha: float = 0.99,
    in_graph: bool = True,
) -> sparse.csr_array | None:
    """The flows (N, N) of the database alone, for `rerank` without `in_graph`; None with it, as by default."""
    if in_graph:
        return None
    return flows(prepared_rows(database), neighbours, truncation, gamma, alpha)
