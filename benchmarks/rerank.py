"""Speed of the re-rankers as ratios to plain torch in the same process (see search.py).

    python benchmarks/rerank.py [queries images dimension]

Plain: everything in float32, neighbours gathered as one array. SuperGlobal is compared with its bound, the time that
the Gram matrices of the shortlists take at the speed of a large float32 matrix product.
"""

import sys
from functools import partial

import torch
from search import best_seconds, compare, draw, report
from torch.nn.functional import normalize

from ssr_lib.rerank import alpha_query_expansion, augment_database, global_rerank, superglobal_rerank
from ssr_lib.search import prepare


def plain_sum(x, database, k, alpha, itself):
    """normalise(x + α Σ max(x·x_j, 0) x_j) of all rows at once; `itself`: whether x is the database."""
    similarity = x @ database.T
    if itself:
        similarity.fill_diagonal_(-2)
    values, near = similarity.topk(k)
    return normalize(x + alpha * (values.clamp(min=0)[:, :, None] * database[near]).sum(dim=1))


def main(n_queries=70, n=4993, dimension=2048):
    queries, database = draw(n_queries, n, dimension)
    q, x, k, alpha, m = torch.from_numpy(queries), torch.from_numpy(database), 10, 0.5, min(400, n)
    augmented = augment_database(database, k, alpha)
    x_hat = torch.from_numpy(augmented.rounds[0])
    print(f"{n_queries:,} queries, {n:,} images of {dimension:,} dimensions, {torch.get_num_threads()} threads")
    print(f"augmented features differ by {(plain_sum(x, x, k, alpha, True) - x_hat).abs().max():.0e} at most")
    ours, there = lambda: augment_database(database, k, alpha), lambda: plain_sum(x, x, k, alpha, True)
    compare("augment_database", ours, "plain torch", there, 1.3, rounds=3)

    def plain():
        refined = plain_sum(q, x, k, alpha, False)
        return (refined @ x_hat.T).sort(dim=1, descending=True, stable=True)[1]

    prepared = prepare(queries), prepare(database)
    for name, pair in (("GFR, query side", (queries, database)), ("GFR, prepared", prepared)):
        ours = partial(global_rerank, *pair, k, alpha, augmented=augmented)
        compare(name, ours, "plain torch", plain, 2)
    ours, there = lambda: alpha_query_expansion(queries, database, k, 1), lambda: plain_sum(q, x, k, 1, False)
    compare("αQE, new queries", ours, "plain torch", there, 2)

    square = torch.ones(4096, 2048), torch.ones(2048, 2048)
    speed = 2 * 4096 * 2048**2 / best_seconds(lambda: square[0] @ square[1], rounds=7)[0]
    bound, (seconds,) = 2 * n_queries * m**2 * dimension / speed, best_seconds(lambda: superglobal_rerank(*prepared, m))
    report("SuperGlobal", seconds, bound, f"{bound / seconds:.0%} of the bound", "bound", 1.54)  # 65 %


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
