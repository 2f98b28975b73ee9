"""Every pooling equals the reference implementation, and the formula worked out by hand."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from ssr_lib import pooling

GOLDEN = Path(__file__).parent / "golden"
MAPS = "abcdef"


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN / "pooling.npz") as stored:
        return {name: torch.from_numpy(stored[name]) for name in stored.files}


@pytest.fixture(scope="module")
def superglobal():
    with np.load(GOLDEN / "superglobal.npz") as stored:
        return {name: torch.from_numpy(stored[name]) for name in stored.files if stored[name].dtype == np.float32}


def assert_equal(value, reference):
    torch.testing.assert_close(value, reference, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", MAPS)
def test_poolings_equal_the_reference(golden, name):
    x = golden[f"{name}_x"]
    assert_equal(pooling.mac(x), golden[f"{name}_mac"])
    assert_equal(pooling.spoc(x), golden[f"{name}_spoc"])
    assert_equal(pooling.gem(x), golden[f"{name}_gem3"])
    assert_equal(pooling.gem(x, 2.5), golden[f"{name}_gem2_5"])
    for levels in range(1, 5):
        assert_equal(pooling.rmac(x, levels), golden[f"{name}_rmac{levels}"])
    spatial, channel = pooling.crow_weights(x)
    assert_equal(spatial, golden[f"{name}_crow_S"])
    assert_equal(channel, golden[f"{name}_crow_C"])
    assert_equal(pooling.crow(x), golden[f"{name}_crow"])


@pytest.mark.parametrize("name", MAPS)
def test_rmac_looks_at_the_regions_of_the_reference(golden, name):
    regions = pooling.rmac_regions(*golden[f"{name}_x"].shape[2:], levels=3)
    assert regions == [tuple(row) for row in golden[f"{name}_rmac3_regions"].tolist()]


def test_superglobal_poolings_equal_the_reference(superglobal):
    x = superglobal["map"]
    regional = pooling.regional_gem(x)
    assert_equal(regional, superglobal["rgem"])
    assert_equal(pooling.gem_plus(x), superglobal["gemp_of_map"])
    assert_equal(pooling.gem_plus(regional), superglobal["gemp_of_rgem"])
    assert_equal(pooling.gem_plus(superglobal["signed_map"]), superglobal["gemp_signed"])
    assert pooling.regional_gem(superglobal["signed_map"]).isnan().all() == superglobal["rgem_signed"].isnan().all()
    module = pooling.Pooling("gem+", 4.6, regional=True)
    assert_equal(module(x), superglobal["gemp_of_rgem"])


def test_scale_gem_equals_the_reference(superglobal):
    scales = superglobal["scales_in"]
    assert_equal(pooling.combine_scales(scales, "scale-gem"), superglobal["sgem_inf_l2"])
    assert_equal(pooling.combine_scales(scales, "scale-gem", p=10), superglobal["sgem_p10_l2"])


def test_mean_over_scales_by_hand():
    scales = torch.tensor([[[3.0, 0.0]], [[0.0, 1.0]]])  # two scales, one image
    assert_equal(pooling.combine_scales(scales), torch.tensor([[0.5**0.5, 0.5**0.5]]))
    assert_equal(pooling.combine_scales(scales, normalize=False), torch.tensor([[0.9**0.5, 0.1**0.5]]))


def test_gem_by_hand():
    x = torch.tensor([[[[1.0, 2.0], [3.0, 0.0]]]])
    assert_equal(pooling.gem(x, 3), torch.tensor([[(36 / 4) ** (1 / 3)]]))
    assert_equal(pooling.gem(x, 1), pooling.spoc(x) + 0.25e-6)


def test_gem_goes_from_mean_to_maximum():
    x = torch.rand(2, 3, 5, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    values = torch.stack([pooling.gem(x, p) for p in (1, 2, 3, 10, 200)])
    assert (values.diff(dim=0) > 0).all()
    torch.testing.assert_close(values[-1], pooling.mac(x), rtol=0.03, atol=0)


def test_grid_gem_of_one_cell_is_gem_and_cells_stand_channel_by_channel():
    x = torch.rand(2, 4, 6, 6, generator=torch.Generator().manual_seed(0))
    assert_equal(pooling.grid_gem(x, 1), F.normalize(pooling.gem(x), dim=1))
    cells = pooling.grid_gem(x, 3).view(2, 4, 3, 3)
    top_left = pooling.gem(x[:, :, :2, :2])
    assert_equal(cells[:, :, 0, 0] / cells[:, :1, 0, 0], top_left / top_left[:, :1])


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_late_fusion_adds_similarities_with_its_weight(weight):
    generator = torch.Generator().manual_seed(0)
    a, b = (F.normalize(torch.randn(5, d, generator=generator), dim=1) for d in (8, 3))
    fused = pooling.late_fusion(a, b, weight)
    assert_equal(fused @ fused.T, (1 - weight) * (a @ a.T) + weight * (b @ b.T))


def test_errors_name_the_value_and_the_legal_ones():
    x = torch.rand(1, 2, 2, 2)
    with pytest.raises(ValueError, match=r"'max'; one of mac, spoc, gem"):
        pooling.Pooling("max")
    with pytest.raises(ValueError, match="p is 0"):
        pooling.gem(x, 0)
    with pytest.raises(ValueError, match=r"\(2, 2\); both sides must exceed 2"):
        pooling.regional_gem(x)
    with pytest.raises(ValueError, match="3 × 3 grid"):
        pooling.grid_gem(x)
    with pytest.raises(ValueError, match="weight is 2"):
        pooling.late_fusion(x[:, 0, 0], x[:, 0, 0], 2)
    with pytest.raises(ValueError, match="'max'; 'mean' or 'scale-gem'"):
        pooling.combine_scales(torch.zeros(1, 1, 1), "max")


def test_gradient_of_gem_with_exponent_3_is_that_of_its_formula():
    x = torch.randn(
        2, 5, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
    )  # half of it is clamped
    x.requires_grad_()
    assert torch.autograd.gradcheck(lambda values: pooling.gem(values, 3.0, eps=1e-2), (x,))
    weights = torch.linspace(-1, 1, 10, dtype=torch.float64).view(2, 5)
    own, formula = (
        torch.autograd.grad((pooled * weights).sum(), x)[0]
        for pooled in (pooling.gem(x), x.clamp(min=1e-6).pow(3).mean(dim=(2, 3)).pow(1 / 3))
    )
    torch.testing.assert_close(own, formula)
