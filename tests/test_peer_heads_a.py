"""Poolings and learned aggregations of the literature, as heads: the papers' formulas, and their starts."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from kernels import execute_here
from test_heads import head_of, noise
from torch import nn

from ssr_lib.backbones import create_model
from ssr_lib.network import RetrievalNet
from ssr_lib.pooling import crow, gem, mac, rmac, rmac_regions
from ssr_lib.study import Study

TIMM, SAME = {"backbone": "test_efficientnet", "pretrained": "none"}, nn.Identity()


def assert_directions_equal(found, expected):
    torch.testing.assert_close(F.normalize(found.double()), F.normalize(expected.double()))


def test_spoc_is_the_sum_weighted_by_the_distance_from_the_centre():
    x = torch.zeros(2, 6, 2, 4)  # σ = 1/3, the place at (0, 1) is (−½, −½) from the centre, that at (0, 0) (−½, −3/2)
    x[0, 0, 0, 1] = x[1, 0, 0, 0] = 1
    near, far = math.exp(-0.5 * 9 / 2), math.exp(-2.5 * 9 / 2)
    torch.testing.assert_close(head_of("spoc")(None, x, SAME)[:, 0], torch.tensor([near, far]) / (4 * near + 4 * far))
    torch.testing.assert_close(head_of("spoc", centre_prior=False)(None, x, SAME)[:, 0], torch.full((2,), 1 / 8))
    unprojected = head_of("spoc", centre_prior=False, projected=False)(None, x, nn.Conv2d(6, 3, 1))
    assert torch.equal(unprojected, x.mean(dim=(2, 3)))


@pytest.mark.parametrize("pooling", [mac, crow, rmac])
def test_a_head_named_after_a_pooling_is_the_pooling(pooling):
    x = noise(3, 6, 5, 4).double().relu()
    assert_directions_equal(head_of(pooling.__name__).double()(None, x, SAME), pooling(x))


def test_rmac_sums_whitened_regions_after_fit():
    x, head = noise(40, 6, 5, 4).double(), head_of("rmac", levels=1, dims=5).double()
    head.fit((None, part, SAME) for part in x.split(10))
    expected = 0
    for y, z, height, width in rmac_regions(5, 4, levels=1):
        region = F.normalize(x[:, :, y : y + height, z : z + width].amax(dim=(2, 3)))
        expected = expected + F.normalize((region - head.mean) @ head.projection.T)
    assert_directions_equal(head(None, x, SAME), expected)
    whitened = ((head.regions(x) - head.mean) @ head.projection.T).flatten(0, 1)  # of 40 · 3 regions, and D = 5
    torch.testing.assert_close(whitened.T @ whitened / 120, torch.eye(5).double(), rtol=0, atol=1e-6)


@torch.no_grad()
def test_neural_codes_are_the_classifiers_outputs_turned_by_their_pca():
    net = RetrievalNet("test_efficientnet", "neural_codes", TIMM, protocol="frozen", pretrained="none").double()
    images = noise(20, 3, 64, 64).double()
    maps = net.eval().maps(images)
    net.head.fit([net.inputs(*maps)])  # on 20 pictures: no more directions than these span
    codes = F.normalize(create_model("test_efficientnet", "none").double().eval()(images))  # of its 1,000 classes
    found, centred = F.normalize(net.pooled(*maps)), F.normalize(codes - codes.mean(dim=0))
    torch.testing.assert_close(found @ found.T, centred @ centred.T, rtol=0, atol=1e-6)
    variances = net.head.projection @ codes.T.cov() @ net.head.projection.T
    assert (variances.diag().diff() <= 1e-9).all() and (variances - variances.diag().diag()).abs().max() < 1e-9
    with pytest.raises(ValueError, match="features and the map has 6 channels"):
        head_of("neural_codes", **TIMM)(None, noise(1, 6, 2, 2), nn.Identity())


@torch.no_grad()
def test_netvlad_is_the_papers_sum_and_starts_at_k_means_also_of_one_word_and_of_equal_ones():
    word = torch.arange(200) % 3
    x = 4 * F.normalize(noise(3, 6).double())[word] + 0.1 * noise(200, 6).double()  # three heaps of local features
    x, head = x.view(10, 4, 5, 6).permute(0, 3, 1, 2), head_of("netvlad", clusters=3, dims=4).double()
    head.fit([(None, x, SAME)])
    local = head.local(x.permute(0, 2, 3, 1))  # (10, 4, 5, 4)
    logits = head.assign(local)
    assert len(torch.stack([word, logits.argmax(dim=-1).flatten()]).unique(dim=1).T) == 3, "a word for each heap"
    ratio = -logits.topk(2).values.diff().mean().item()  # the logarithm of the paper's; α was chosen on 8 places of 20
    assert ratio == pytest.approx(math.log(100), rel=0.1)
    expected = torch.zeros(10, 3, 4, dtype=torch.float64)
    for i, y, z, k in np.ndindex(10, 4, 5, 3):
        expected[i, k] += logits.softmax(dim=-1)[i, y, z, k] * (local[i, y, z] - head.centres[k])
    assert_directions_equal(head(None, x, SAME), F.normalize(expected, dim=2).flatten(1))
    x = torch.ones(4, 6, 3, 3)
    for head in (head_of("netvlad", clusters=1), head_of("netvlad", clusters=2), head_of("spatial_context", types=1)):
        head.fit([(None, x, SAME)])
        assert head(None, x, SAME).isfinite().all()


def test_lit_gathers_by_templates_that_compete_and_may_start_as_plain():
    x, project = noise(2, 6, 3, 4).double(), nn.Conv2d(6, 9, 1).double()
    head = head_of("lit", (5, 6, 9), templates=3, dims=4, iterations=2, start="identity").double()
    torch.testing.assert_close(head(None, x, project), gem(project(x)))
    places, s = head.norm_places(x[0].flatten(1).T), head.templates
    for _ in range(2):
        scores = torch.stack([head.key(places) @ query for query in head.query(head.norm_templates(s))]) / 4**0.5
        shares = scores.exp() / scores.exp().sum(dim=0)  # (3, 12): over templates
        s = s + torch.stack([(share[:, None] * head.value(places)).sum(dim=0) / share.sum() for share in shares])
        s = s + head.mlp(s)
    torch.testing.assert_close(head.super_features(x)[0], s)
    random = head_of("lit", (5, 6, 9), dims=4).double()
    z = 2 * F.normalize(random.super_features(x), dim=2).mean(dim=1)
    assert torch.equal(random(None, x, project), z) and random.width == 4


def test_without_rates_notebook_12_measures_heads_that_need_no_training_and_says_so(tmp_path):
    changes = {"tables.rates": [], "networks.MAC": {"head": "mac", "trained": False, "whitening": False}}
    changes |= {f"data.{split}.landmarks": 3 for split in ("training", "validation", "test")}
    study, told = Study("smoke", tmp_path, changes, progress=False), ""
    for name in ("12_peers", "12a_peers_cost"):
        told += execute_here(study, name, profile="smoke", workspace=str(tmp_path), changes=changes)
    assert "trains no head" in told and "On the front of operations (million)" in told
    measured = study.read_rows("12_peers").query("measure == 'mAP'")
    assert [*measured["network"].unique()] == ["untrained", "structural", "MAC"] and measured["seed"].isna().all()
    costs = study.read_rows("12a_peers_cost").pivot_table("value", "network", "measure")
    assert (costs["parameters"] == 0).all() and costs["activity"]["untrained"] == 0 < costs["activity"]["MAC"]
