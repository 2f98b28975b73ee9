"""αQE + DBA: the database is augmented first, then each query is expanded in it, as deep-image-retrieval does.

Source: Gordo et al., IJCV 2017, section 5.3: reference [29] of the paper; weights as in `alpha_qe.py`.
"""

from __future__ import annotations

import torch

from ssr_lib.rerank._ranking import Ranking, Reranking, check_size, rank_again
from ssr_lib.rerank.alpha_qe import expand
from ssr_lib.rerank.dba import prepare
from ssr_lib.search.prepared import Prepared, as_pair, own_ids

NEEDS = "descriptors"


@torch.no_grad()
def rerank(
    queries, database, first: Ranking | None, *, prepared: Prepared | None = None, k: int, exponent: float
) -> Reranking:
    """The ranking of expanded queries (Q, D) in the augmented database; `prepared`: what `prepare` returned."""
    q, d = as_pair(queries, prepare(database, k=k, exponent=exponent) if prepared is None else prepared)
    check_size(len(d), database)
    own = None if first is None else own_ids(first.own, q, d)
    return rank_again(expand(q, d, k, exponent, own), d, own)
