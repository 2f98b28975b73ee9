"""Local features of stored maps, and ASMK on them, against loops; maps that hold nothing, one place, or one value."""

import numpy as np
import pytest
import torch

from ssr_lib.local import d2, delf, fire, how
from ssr_lib.pooling import rmac_regions
from ssr_lib.rerank import asmk, asmk_regional
from ssr_lib.store import Maps

RNG = np.random.default_rng(0)
SEEN = RNG.normal(size=(4, 5, 12))  # 4 landmarks show 5 things each
LABELS = np.repeat(np.arange(4), 6)
FITS = {how: {"dims": 6}, delf: {"steps": 60, "hidden": 32, "rate": 0.02}, fire: {"templates": 5, "steps": 4}, d2: None}


def picture(landmark, height, width):
    """A map of the clutter that all landmarks share, a third of it things of a landmark."""
    shown = SEEN[landmark][RNG.integers(5, size=(height, width))]
    shown[RNG.random((height, width)) > 1 / 3] = 0.5
    return (shown + 0.2 * RNG.normal(size=shown.shape)).astype(np.float16)


TRAIN = Maps([picture(i, 7 + n % 2 * 2, 8) for n, i in enumerate(LABELS)], None, "train", {})
BLANK, POINT = np.zeros((5, 7, 12), np.float16), np.ones((1, 1, 12), np.float16)
ODD = Maps([picture(0, 9, 8), BLANK, POINT, POINT, picture(3, 6, 6)], None, "odd", {})


@pytest.fixture(scope="module")
def learned():
    return {kind: {"learned": kind.fit(TRAIN, LABELS, **how)} if how else {} for kind, how in FITS.items()}


@pytest.mark.parametrize("kind", FITS)
def test_features_are_unit_the_strongest_first_inside_and_of_their_own_picture_alone(kind, learned):
    found = kind.extract(ODD, count=30, **learned[kind])
    for own, x in zip(found, ODD.mid, strict=True):
        assert np.allclose(np.linalg.norm(own.descriptors, axis=1), 1, atol=1e-5) and (np.diff(own.weights) <= 0).all()
        assert ((own.points > 0) & (own.points < 16 * np.array(x.shape[1::-1]))).all() and len(own) <= 30
    assert len(found[0]) > 0 and (len(found[1]) == 0 or kind is fire), "zeros show nothing; templates stand anywhere"
    assert np.array_equal(found[2].descriptors, found[3].descriptors), "of duplicates"
    alone = kind.extract(ODD.take([4]), count=30, **learned[kind])[0]
    assert np.allclose(alone.descriptors, found[4].descriptors, atol=1e-5), "on whatever else there is"
    with pytest.raises(ValueError, match="the last maps are not stored"):
        kind.extract(ODD, count=30, place="last", **learned[kind])


def test_how_smooths_over_the_places_there_are_and_weighs_by_the_length_before(learned):
    x, whitening = ODD.mid[4].astype(float), learned[how]["learned"]
    own = how.extract(ODD, count=36, **learned[how])[4]
    cells = own.points[:, ::-1].astype(int) // 16
    for (i, j), descriptor, weight in zip(cells, own.descriptors, own.weights, strict=True):
        v = whitening.projection @ (x[max(0, i - 1) : i + 2, max(0, j - 1) : j + 2].mean(axis=(0, 1)) - whitening.mean)
        assert np.allclose(descriptor, v / np.linalg.norm(v), atol=1e-3) and np.isclose(weight, np.linalg.norm(x[i, j]))


def test_soft_detection_and_the_matches_and_losses_of_super_features_are_those_computed_by_hand():
    peaks = d2.soft_detection(torch.tensor([[[[1.0, 0.5]]]])).flatten()
    assert (peaks[0] / peaks[1]).item() == pytest.approx(np.exp(0.5)), "e / (e + √e + 7) and √e / (e + √e + 7)"
    two = torch.tensor([[[[1.0, 1.0]], [[0.9, 0.0]]]])  # channel 2 has the sharper peak, 0.235 to 0.219, at ratio 0.9
    assert d2.soft_detection(two).flatten().tolist() == pytest.approx([0.5, 0.5])
    s, near = torch.eye(2), torch.tensor([[0.8, 0.6], [0.6, 0.8]])
    assert fire.matched(s, near).tolist() == [0, 1] and fire.matched(s, near.flip(0)).tolist() == []
    loss = fire.super_loss(torch.stack([s, near, s.flip(0), s.flip(0)]), torch.tensor([0, 0, 1, 1]))
    negatives = 2 * (1.1 - 0.8**0.5) ** 2  # near 0 and s.flip 0, near 1 and s.flip 1; the others are beyond the margin
    assert loss.item() == pytest.approx((2 * 0.4 + negatives) / 2), "of two pairs"
    assert fire.decorrelation(torch.tensor([[[1.0, 0.0], [0.6, 0.8]]])).item() == pytest.approx(0.6)


def binary(own, codebook, assignments, regions):
    """b(X_c) as rows (K, D), of zeros where X has no word c."""
    rows, total = own.descriptors.astype(float), np.zeros(codebook.shape)
    near = ((rows[:, None] - codebook) ** 2).sum(2).argsort(1)[:, :assignments]
    for y, x, height, width in regions:
        inside = ((own.points >= (x, y)) & (own.points < (x + width, y + height))).all(1)
        has = (near[:, :, None] == np.arange(len(codebook))).any(1) & inside[:, None]  # (n, K)
        v = has.T @ rows - has.sum(0)[:, None] * codebook
        total += v / max(np.linalg.norm(v), 1e-9)
    return np.sign(total)


def test_the_attention_of_delf_learns_to_look_at_what_tells_landmarks_apart(learned):
    rows = np.stack([np.full((5, 12), 0.5), SEEN[1] / 9]).astype(np.float16)  # clutter, and fainter things
    own = delf.extract(Maps([rows], None, "rows", {}), count=10, **learned[delf])[0]
    assert own.points[:5, 1].tolist() == [24] * 5 and own.weights[4] > 1.2 * own.weights[5]


@pytest.mark.parametrize("module, options", [(asmk, {}), (asmk_regional, {"levels": 3})])
def test_asmk_is_its_formula_and_finds_the_picture_itself(module, options):
    database, kernel = TRAIN.take(range(1, 24, 2)), module.fit(TRAIN, LABELS, words=20, options={"dims": 6})
    regions = 16 * np.array(rmac_regions(9, 8, options.get("levels", 0)))  # in pixels
    images = [binary(own, kernel.codebook, 1, regions) for own in kernel.extract(database)]
    got = module.rerank(ODD, database, None, learned=kernel, assignments=3, alpha=2.0, threshold=-0.4, **options)
    for own, ranks, scores in zip(kernel.extract(ODD), got.ranks, got.scores, strict=True):
        query = binary(own, kernel.codebook, 3, regions[:1])
        for image, score in zip((images[rank] for rank in ranks), scores, strict=True):
            u = (query * image).sum(1)[query.any(1) & image.any(1)] / 6
            total = (np.sign(u) * np.abs(u) ** 2)[u > -0.4].sum()
            assert score == pytest.approx(total / max(1, query.any(1).sum() * image.any(1).sum()) ** 0.5)
    assert got.ranks[1].tolist() == list(range(12)) and not got.scores[1].any(), "a query without features"
    own = module.rerank(database, database, None, learned=module.fit(TRAIN, LABELS), assignments=1, **options)
    assert own.ranks[:, 0].tolist() == list(range(12))
    assert len(asmk.fit(TRAIN, LABELS, words=10**6, count=40).codebook) == 24 * 40 // asmk.PER_WORD
