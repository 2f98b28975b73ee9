"""Whitening equals the reference implementation and whitens."""

from pathlib import Path

import numpy as np
import pytest

from ssr_lib.whitening import fit_lda, fit_learned, fit_pca

GOLDEN = np.load(Path(__file__).parent / "golden" / "qe.npz")


def same_up_to_sign(rows, reference):
    return np.abs(rows * np.sign((rows * reference).sum(axis=1, keepdims=True)) - reference).max()


@pytest.mark.parametrize("kind", ["w", "pca"])
def test_projection_and_descriptors_equal_the_reference(kind):
    x = GOLDEN["w_X"].T  # the reference stores columns
    whitening = fit_pca(x) if kind == "pca" else fit_learned(x, GOLDEN["w_q"], GOLDEN["w_p"])
    assert np.abs(whitening.mean - GOLDEN[f"{kind}_m"][:, 0]).max() < 1e-8
    assert same_up_to_sign(whitening.projection, GOLDEN[f"{kind}_P"]) < 1e-8
    for dims, suffix in ((None, ""), (8, "8")):
        assert same_up_to_sign(whitening.apply(x, dims).T, GOLDEN[f"{kind}_apply{suffix}"]) < 1e-8


def test_singular_scatter_gets_the_smallest_diagonal_that_helps_and_what_cannot_be_whitened_is_named():
    x = np.repeat(np.random.default_rng(0).standard_normal((40, 3)), 2, axis=1)  # every column twice
    learned = fit_learned(x, np.arange(20), np.arange(20, 40))
    assert np.isfinite(learned.apply(x)).all() and learned.varied == len(fit_pca(x[:5]).projection) == 3
    assert len(fit_pca(x[:1]).projection) == 0, "one row does not vary"
    with pytest.raises(ValueError, match="infs or NaNs"):
        fit_pca(x * np.nan)
    with pytest.raises(ValueError, match="each of 40 descriptors is a class of its own"):
        fit_lda(x, np.arange(40))
    with pytest.raises(ValueError, match="2 queries for 1 positives"):
        fit_learned(x, [0, 1], [2])


def test_descriptors_of_a_whitening_from_few_pictures_do_not_depend_on_the_axes():
    x = np.random.default_rng(7).standard_normal((114, 64))
    few = [fit_lda(y[:24], np.repeat(range(8), 3), 1.0).apply(y[24:50], 32) for y in (x, x @ np.linalg.qr(x[50:])[0])]
    assert few[0].shape == (26, 64) and np.abs(few[0] @ few[0].T - few[1] @ few[1].T).max() < 1e-12


def test_lda_makes_the_scatter_within_classes_white_and_orders_directions_by_total_variance():
    rng = np.random.default_rng(6)
    labels, centres = (np.repeat(x, 100, axis=0) for x in ([3, 1, 4], [[4.0, 0, 0], [-4, 0, 0], [0, 1, 0]]))
    mixing = rng.standard_normal((3, 3))
    x = (rng.standard_normal((300, 3)) + centres) @ mixing
    whitening = fit_lda(x, labels)
    y = (x - whitening.mean) @ whitening.projection.T
    within = sum(np.cov(y[labels == label], rowvar=False, bias=True) for label in (1, 3, 4)) / 3
    np.testing.assert_allclose(within, np.eye(3), atol=1e-10)
    total = np.cov(y, rowvar=False, bias=True)
    np.testing.assert_allclose(total, np.diag(np.diag(total)), atol=1e-9)
    assert (np.diff(np.diag(total)) < 0).all() and total[2, 2] < 1.01 < total[1, 1], "three classes differ in a plane"


def test_shrinkage_adds_its_share_of_the_average_variance_to_every_direction():
    x = np.array([[1.0, 0], [-1, 0], [3, 2], [3, -2]])  # within: variances 1/2 and 2, average 5/4
    projection = fit_lda(x, np.array([0, 0, 1, 1]), shrinkage=2.0).projection
    np.testing.assert_allclose(projection.T @ projection, np.diag([1 / 3.0, 1 / 4.5]), atol=1e-12)
