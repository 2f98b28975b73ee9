"""Speed of the re-rankers as ratios to implementations image by image, in the same process (see search.py).

python benchmarks/rerank.py
"""

import numpy as np
from search import best_seconds, draw, report

from ssr_lib.rerank import alpha_query_expansion, augment_database, global_rerank, superglobal_rerank


def plain_sum(x, database, k, alpha, own=-1):
    """normalise(x + α Σ max(x·x_j, 0) x_j) of one image."""
    similarity = database @ x
    near = np.argsort(-similarity, kind="stable")[: k + 1]
    near = near[near != own][:k]
    total = x + alpha * np.maximum(similarity[near], 0) @ database[near]
    return total / np.linalg.norm(total)


def plain_rerank(queries, database, augmented, k, alpha):
    """Every query refined and compared with the augmented database, one after the other."""
    return np.stack([np.argsort(-(augmented @ plain_sum(q, database, k, alpha)), kind="stable") for q in queries])


def plain_superglobal(queries, database, m=400, k=9, beta=0.15):
    """SuperGlobal for all queries at once, gathered as (Q, M, K + 1, D) the way its public implementation does."""
    import torch

    q, x = torch.from_numpy(queries), torch.from_numpy(database)
    first = (q @ x.T).argsort(dim=1, descending=True)
    members = x[first[:, :m]]  # (Q, M, D)
    similarity, near = (members @ members.mT).topk(k + 1, dim=2)
    weights = torch.cat([torch.ones_like(similarity[..., :1]), beta * similarity[..., 1:]], dim=2)
    gathered = torch.stack([part[index] for part, index in zip(members, near, strict=True)])  # (Q, M, K + 1, D)
    refined = (weights[..., None] * gathered).sum(dim=2) / weights.sum(dim=2, keepdim=True)
    s1 = (refined @ q[:, :, None])[..., 0]
    best = s1.topk(k + 1, dim=1).indices
    expanded = torch.stack([part[index].amax(dim=0) for part, index in zip(refined, best, strict=True)])
    final = (s1 + (refined @ expanded[:, :, None])[..., 0]) / 2
    return first[:, :m].gather(1, final.argsort(dim=1, descending=True)).numpy()


def main():
    queries, database = draw()
    k, alpha = 10, 0.5
    augmented = augment_database(database, k, alpha)
    plain_augmented = lambda n: np.stack([plain_sum(x, database, k, alpha, i) for i, x in enumerate(database[:n])])
    agree = f"largest difference {np.abs(plain_augmented(200) - augmented.rounds[0][:200]).max():.1e}"
    ours, plain = best_seconds(lambda: augment_database(database, k, alpha), lambda: plain_augmented(200), rounds=1)
    report("augment_database (plain: 200 x 25)", ours, plain * len(database) / 200, agree)

    ours = lambda: global_rerank(queries, database, k, alpha, augmented=augmented)
    plain = lambda: plain_rerank(queries, database, augmented.rounds[0], k, alpha)
    agree = f"{(ours().ranks == plain()).mean():.2%} of places equal"
    report("global_rerank, query side", *best_seconds(ours, plain), agree)

    ours = lambda: alpha_query_expansion(queries, database, k, 3)
    report("alpha_query_expansion", *best_seconds(ours, lambda: [plain_sum(q, database, k, 1) for q in queries]))

    few = queries[:20]  # the plain way gathers 120 MB a query
    ours, plain = lambda: superglobal_rerank(few, database), lambda: plain_superglobal(few, database)
    agree = f"{(ours().ranks[:, :400] == plain()).mean():.2%} of places equal"
    report("superglobal_rerank, 20 queries", *best_seconds(ours, plain, rounds=2), agree)


if __name__ == "__main__":
    main()
