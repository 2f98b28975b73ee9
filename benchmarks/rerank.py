"""Speed of the re-rankers as ratios to plain torch in the same process (see search.py).

    python benchmarks/rerank.py [queries images dimension]

Plain: everything in float32, neighbours gathered as one array. SuperGlobal is compared with its bound, the time that
the Gram matrices of the shortlists take at the speed of a large float32 matrix product.
"""

import sys

import torch
from search import best_seconds, compare, draw
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


def plain_superglobal(queries, database, m=400, k=9, beta=0.15):
    """SuperGlobal for all queries at once, gathered as (Q, M, K + 1, D) the way its public implementation does."""
    first = (queries @ database.T).argsort(dim=1, descending=True)
    members = database[first[:, :m]]  # (Q, M, D)
    similarity, near = (members @ members.mT).topk(k + 1, dim=2)
    weights = torch.cat([torch.ones_like(similarity[..., :1]), beta * similarity[..., 1:]], dim=2)
    gathered = torch.stack([part[index] for part, index in zip(members, near, strict=True)])  # (Q, M, K + 1, D)
    refined = (weights[..., None] * gathered).sum(dim=2) / weights.sum(dim=2, keepdim=True)
    s1 = (refined @ queries[:, :, None])[..., 0]
    best = s1.topk(k + 1, dim=1).indices
    expanded = torch.stack([part[index].amax(dim=0) for part, index in zip(refined, best, strict=True)])
    final = (s1 + (refined @ expanded[:, :, None])[..., 0]) / 2
    return first[:, :m].gather(1, final.argsort(dim=1, descending=True))


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
    compare(
        "GFR, query side",
        lambda: global_rerank(queries, database, k, alpha, augmented=augmented),
        "plain torch",
        plain,
        2,
    )
    compare("GFR, prepared", lambda: global_rerank(*prepared, k, alpha, augmented=augmented), "plain torch", plain, 2)
    ours, there = lambda: alpha_query_expansion(queries, database, k, 1), lambda: plain_sum(q, x, k, 1, False)
    compare("αQE, new queries", ours, "plain torch", there, 2)

    few = min(20, n_queries)  # the plain way gathers 33 MB a query
    same = superglobal_rerank(queries[:few], database, m).ranks[:, :m] == plain_superglobal(q[:few], x, m).numpy()
    print(f"places of SuperGlobal equal to the plain way's: {same.mean():.2%}")
    ours, there = lambda: superglobal_rerank(queries[:few], database, m), lambda: plain_superglobal(q[:few], x, m)
    compare(f"SuperGlobal, {few} queries", ours, "plain torch", there, 1, rounds=2)
    square = torch.ones(4096, 2048), torch.ones(2048, 2048)
    speed = 2 * 4096 * 2048**2 / best_seconds(lambda: square[0] @ square[1], rounds=7)[0]
    bound, (seconds,) = 2 * n_queries * m**2 * dimension / speed, best_seconds(lambda: superglobal_rerank(*prepared, m))
    print(f"SuperGlobal: bound {1e3 * bound:.0f} ms of {1e3 * seconds:.0f} ms: {bound / seconds:.0%} (goal 65 %)")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
