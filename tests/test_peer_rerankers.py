"""Re-rankers of the paper's references: against stored outputs of public implementations, and against loops."""

from pathlib import Path

import numpy as np
import pytest
from cities import city, table
from kernels import study_here

from ssr_lib.files import load_part
from ssr_lib.rerank import adaptive, alpha_query_expansion, attention_qe, diffusion, dqe, first_ranking, k_reciprocal
from ssr_lib.search import prepare

GOLDEN = np.load(Path(__file__).parent / "golden" / "diffusion.npz")  # of the public implementation
Q, X = GOLDEN["Q"], GOLDEN["X"]  # (7, 64), (300, 64)
UNIT_Q, UNIT_X = (x.astype(np.float64) / np.linalg.norm(x.astype(np.float64), axis=1, keepdims=True) for x in (Q, X))


def by_id(reranking) -> np.ndarray:
    scores = np.zeros(reranking.ranks.shape)
    np.put_along_axis(scores, reranking.ranks, reranking.scores, axis=1)
    return scores


@pytest.mark.parametrize("case", ["st_a", "st_b", "st_c"])
def test_diffusion_with_queries_in_the_graph_as_the_public_implementation(case):
    how = {"neighbours": int(GOLDEN[f"{case}_kd"]) - 1, "truncation": int(GOLDEN[f"{case}_n_trunc"])}  # itself first
    got = diffusion.rerank(Q, X, None, **how)
    np.testing.assert_allclose(by_id(got), GOLDEN[f"{case}_scores"], atol=5e-6)
    assert diffusion.rerank(Q, X[:20], None).ranks.shape == (7, 20), "fewer than its neighbours by default"
    assert diffusion.prepare(X, **how) is None, "the queries are wanted first, as by default in rerank"
    for ranks, reached, expected in zip(got.ranks, GOLDEN[f"{case}_scores"] > 0, GOLDEN[f"{case}_ranks"], strict=True):
        assert ranks[: reached.sum()].tolist() == expected[: reached.sum()].tolist()


def test_diffusion_of_the_database_alone_as_the_public_implementation():
    how = {"neighbours": 19, "truncation": 100, "in_graph": False, "k": 10}
    flows = diffusion.prepare(X, **how)
    np.testing.assert_allclose(flows.toarray()[:40], GOLDEN["old_a_offline_rows"], atol=2e-4)
    got = diffusion.rerank(Q, X, None, prepared=flows, **how)
    np.testing.assert_allclose(by_id(got), GOLDEN["old_a_scores_full"], atol=2e-4)
    for ids, ranks, scores in zip(first_ranking(Q, X).ids, got.ranks, got.scores, strict=True):
        unreached = ranks[scores == 0].tolist()  # in the order of the first ranking
        assert unreached and unreached == [i for i in ids if i in unreached]
    near, similarity, cosines = np.zeros((300, 300), bool), UNIT_X @ UNIT_X.T - 3 * np.eye(300), UNIT_Q @ UNIT_X.T
    np.put_along_axis(near, np.argsort(-similarity, axis=1)[:, :6], True, axis=1)
    w = np.where(near & near.T, np.maximum(similarity, 0) ** 2, 0)
    d = 1 / np.sqrt(w.sum(axis=1) + 1e-12)
    start = np.where(np.argsort(np.argsort(-cosines, axis=1), axis=1) < 4, np.maximum(cosines, 0) ** 2, 0)
    how = {"neighbours": 6, "truncation": 300, "gamma": 2.0, "alpha": 0.5, "k": 4, "in_graph": False}
    wanted = start @ np.linalg.inv(np.eye(300) - 0.5 * d[:, None] * w * d)
    np.testing.assert_allclose(by_id(diffusion.rerank(Q, X, None, **how)), wanted, atol=1e-5)


def k_reciprocal_by_loops(k, k2, weight):
    """1 − d* (Q, N), one image after another; sets are rows of truth values."""
    similarity = UNIT_X @ UNIT_X.T - 3 * np.eye(300)
    order = np.argsort(-similarity, axis=1)
    place = np.argsort(order, axis=1)  # of image j among those of image i
    np.fill_diagonal(place, -1)  # an image is in its own sets
    members, halves = (np.maximum(place, place.T) < size for size in (k, k // 2))

    def encode(members, cosines):
        taken = members.copy()
        for half in halves[members]:
            if (members & half).sum() >= 2 / 3 * half.sum():
                taken |= half
        return np.where(taken, np.exp(cosines - 1), 0)

    encoded = np.array([encode(members[i], UNIT_X @ UNIT_X[i]) for i in range(300)])
    averaged, found = np.array([np.mean([encoded[i], *encoded[order[i, : k2 - 1]]], axis=0) for i in range(300)]), []
    for cosines in UNIT_Q @ UNIT_X.T:
        ranked = np.argsort(-cosines)
        near = (np.argsort(ranked) < k) & (cosines >= np.sort(similarity)[:, -k])
        v = np.mean([encode(near, cosines), *encoded[ranked[: k2 - 1]]], axis=0)
        jaccard = np.minimum(v, averaged).sum(axis=1) / np.maximum(v, averaged).sum(axis=1)
        found.append((1 - weight) * jaccard + weight * cosines)
    return np.array(found)


@pytest.mark.parametrize(("k", "k2", "weight"), [(20, 6, 0.3), (5, 1, 0.0), (7, 3, 0.5)])
def test_k_reciprocal_as_loops_give_it(k, k2, weight):
    got = k_reciprocal.rerank(Q, X, None, k=k, k2=k2, weight=weight)
    np.testing.assert_allclose(by_id(got), k_reciprocal_by_loops(k, k2, weight), atol=1e-7)


def test_a_query_of_the_database_is_in_its_own_set_and_stands_once_in_the_graph():
    queries, own = np.concatenate([Q[:1], X[1:]]), np.r_[-1, 1:300]
    first, how = first_ranking(queries, X, own), {"neighbours": 10, "truncation": 100}
    jaccard = by_id(k_reciprocal.rerank(queries, X, first, k=8, k2=4))[1:, 1:]
    np.testing.assert_allclose(jaccard, jaccard.T, atol=1e-7)
    z = diffusion.flows(prepare(np.concatenate([Q[:1], X])), gamma=3.0, alpha=0.99, **how)
    wanted = (diffusion.unit_rows(z) @ diffusion.unit_rows(z).T).toarray()[[0, *range(2, 301)], 1:]
    wanted[range(1, 300), own[1:]] = -np.inf
    np.testing.assert_allclose(by_id(diffusion.rerank(queries, X, first, **how)), wanted, atol=1e-6)
    with pytest.raises(ValueError, match=r"alpha is 1; wanted .* 0 to 0\.9999"):
        diffusion.rerank(Q, X, None, alpha=1)


def test_discriminative_expansion_separates_the_first_images_from_the_last(monkeypatch):
    """Two far points a side: the machine's plane lies in the middle between them, so w is along their difference."""
    database, query = np.eye(6, dtype=np.float32), np.float32([[1, 0.5, 0, 0, 0, 0]])
    np.testing.assert_allclose(dqe.classifier(np.float32([[1, 0]]), np.float32([[-1, 0]]), c=1000.0), [1, 0], atol=1e-6)
    got = dqe.rerank(query, database, None, k=1, negatives=2)
    assert got.ranks[0, :2].tolist() == [0, 1] and set(got.ranks[0, -2:]) == {4, 5}  # equal cosines go by id
    with pytest.raises(ValueError, match="k is 4; wanted an integer from 1 to 3"):
        dqe.rerank(query, database, None, k=4)
    seen = []
    monkeypatch.setattr(dqe, "classifier", lambda right, wrong, c: seen.append((len(right), len(wrong), c)) or right[0])
    dqe.rerank(Q, X, None, k=3, negatives=7, c=2.0)
    assert seen == [(4, 7, 2.0)] * 7


def test_adaptive_weights_as_whole_matrices_give_them():
    k, rule, n = 10, {"alpha": 2.0, "low": 0.3, "span": 0.5}, len(Q)
    everything = np.concatenate([UNIT_Q, UNIT_X])
    cosines = everything @ UNIT_X.T  # (Q + N, N)
    np.fill_diagonal(cosines[n:], np.nan)  # no image is a neighbour of its own
    mean, deviation, best = (of(cosines, axis=1, keepdims=True) for of in (np.nanmean, np.nanstd, np.nanmax))
    z, r = (cosines - mean) / deviation, (cosines - mean) / (best - mean)
    z_back = (cosines - mean[n:].T) / deviation[n:].T
    counts = np.clip((np.minimum(z, z_back) / np.sqrt(2 * np.log(len(X))) - rule["low"]) / rule["span"], 0, 1)
    weights = rule["alpha"] * counts * r * np.minimum((cosines - mean[n:].T) / (best - mean)[n:].T, 1)
    near = np.argsort(-cosines, axis=1)[:, :k]  # nan comes last
    refined = everything + np.einsum("ik,ikd->id", np.take_along_axis(weights, near, axis=1), UNIT_X[near])
    refined /= np.linalg.norm(refined, axis=1, keepdims=True)
    got = adaptive.rerank(Q, X, None, k=k, **rule)
    np.testing.assert_allclose(np.concatenate([got.queries, got.database]), refined, atol=1e-6)
    assert np.abs(got.database - UNIT_X).max() > 0.1  # something was added
    flat = np.eye(6, dtype=np.float32)  # no image is nearer than the mean
    assert np.array_equal(adaptive.rerank(flat, flat, first_ranking(flat, flat, np.arange(6)), k=2).queries, flat)
    own = adaptive.rerank(X[:9], X, first_ranking(X[:9], X, np.arange(9)), k=5)
    np.testing.assert_allclose(own.queries, own.database[:9], atol=1e-6)


@pytest.mark.parametrize("name", ["diffusion", "k_reciprocal", "dqe", "adaptive", "dba", "aqe", "superglobal"])
def test_a_part_takes_what_it_prepared_leaves_out_the_own_image_and_asks_no_other_query_and_no_order(name):
    part, how = load_part(name, "rerank"), {"k": 5, "in_graph": False} if name == "diffusion" else {"k": 5}
    first = first_ranking(X[[2, 1, 0]], X, [2, -1, 0])
    found = [part.rerank(X[[2, 1, 0]], X, first, **how)]
    if hasattr(part, "prepare"):
        found.append(part.rerank(X[[2, 1, 0]], X, first, prepared=part.prepare(X, **how), **how))
        with pytest.raises(ValueError, match="prepared has 299 images and the database 300"):
            part.rerank(X[[2, 1, 0]], X, first, prepared=part.prepare(X[1:], **how), **how)
    for result in found:
        assert result.ranks.shape == (3, 300) and result.ranks[[0, 2], -1].tolist() == [2, 0]
        assert (np.sort(result.ranks, axis=1) == np.arange(300)).all()
        np.testing.assert_array_equal(result.ranks, found[0].ranks)
    ranks, order = part.rerank(Q, X, None, **how).ranks, np.random.default_rng(0).permutation(300)
    for i, query in enumerate(Q):
        assert np.array_equal(part.rerank(query[None], X, None, **how).ranks[0], ranks[i])
    assert np.array_equal(order[part.rerank(Q, X[order], None, **how).ranks], ranks)


def test_learned_expansion_starts_as_alpha_qe_and_learns_which_neighbours_are_right():
    """An image's class stands in 24 numbers of 64; images of the other classes come close by the rest."""
    rng, labels = np.random.default_rng(0), np.repeat(np.arange(30), 8)
    x = np.hstack([rng.normal(size=(30, 24))[labels], 1.2 * rng.normal(size=(240, 40))]).astype(np.float32)
    start = attention_qe.fit(x, labels, k=5, steps=0)
    got = attention_qe.rerank(Q, X, None, learned=attention_qe.fit(X, np.arange(300).astype(str), k=5, steps=0))
    np.testing.assert_allclose(got.queries, alpha_query_expansion(Q, X, 5, 1), atol=1e-6)
    own = attention_qe.rerank(x, x, first_ranking(x, x, np.arange(240)), learned=start).queries
    np.testing.assert_allclose(own, alpha_query_expansion(x, x, 5, 1, query_ids=np.arange(240)), atol=1e-6)
    learned, right = attention_qe.fit(x, labels, k=5, steps=100, rate=1e-3), []
    for model in (start, learned):
        found = attention_qe.rerank(x, x, first_ranking(x, x, np.arange(240)), learned=model)
        right.append((labels[found.ranks[:, :7]] == labels[:, None]).mean())
    assert right[1] > right[0] + 0.02
    again = attention_qe.fit(x, labels, k=5, steps=100, rate=1e-3)
    assert all((a == b).all() for a, b in zip(learned.parameters(), again.parameters(), strict=True))


def test_heads_and_rerankers_have_their_rows_on_photographs(tmp_path, monkeypatch):
    city(tmp_path / "n", 100)
    table(tmp_path / "t", [(400 + i // 5, i % 5, "train") for i in range(30)])
    monkeypatch.setenv("SSR_DATA", str(tmp_path))
    notebooks = {"12e_peers_real": {}, "12f_peers_real_rerank": {}}
    read = study_here("peers_real.yaml", tmp_path, notebooks).read_scores
    means = [read(name).groupby(["network", "reranker"], sort=False)["value"].mean() for name in notebooks]
    assert [*means[0].index] == [("plain", "none"), ("DOLG", "none")] and means[0].iloc[0] == means[1].iloc[0]
    assert [*means[1]["plain"].index] == ["none", "adaptive GFR", "GFR", "LAttQE"]
