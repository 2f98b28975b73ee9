"""Every pooling equals the reference implementation."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from ssr_lib import pooling

GOLDEN = Path(__file__).parent / "golden"


def stored(name):
    return {key: torch.from_numpy(x) for key, x in np.load(GOLDEN / name).items() if x.dtype.kind in "fi"}


POOLING, SUPERGLOBAL = stored("pooling.npz"), stored("superglobal.npz")
assert_equal = partial(torch.testing.assert_close, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", "abcdef")
def test_poolings_equal_the_reference(name):
    x = POOLING[f"{name}_x"]
    spatial, channel = pooling.crow_weights(x)
    found = {"mac": pooling.mac(x), "spoc": pooling.spoc(x), "gem3": pooling.gem(x), "gem2_5": pooling.gem(x, 2.5)}
    found |= {f"rmac{levels}": pooling.rmac(x, levels) for levels in range(1, 5)}
    found |= {"crow_S": spatial, "crow_C": channel, "crow": pooling.crow(x)}
    for pooled, value in found.items():
        assert_equal(value, POOLING[f"{name}_{pooled}"])
    assert_equal(pooling.GeM(2.5, learn=True)(x), found["gem2_5"])
    for p, taken in ((9.0, 6.0), (0.5, 1.0)):
        learned = pooling.GeM(learn=True)
        learned.load_state_dict({"p": torch.tensor(p)})
        assert_equal(learned(x), pooling.gem(x, taken))
    regions = pooling.rmac_regions(*x.shape[2:], levels=3)
    assert regions == [tuple(row) for row in POOLING[f"{name}_rmac3_regions"].tolist()]


def test_superglobal_poolings_equal_the_reference_and_errors_name_the_value_and_the_legal_ones():
    x = SUPERGLOBAL["map"]
    regional = pooling.regional_gem(x)
    assert_equal(regional, SUPERGLOBAL["rgem"])
    assert_equal(pooling.gem(x, 4.6, eps=1e-8), SUPERGLOBAL["gemp_of_map"])
    assert_equal(pooling.gem(regional, 4.6, eps=1e-8), SUPERGLOBAL["gemp_of_rgem"])
    assert_equal(pooling.gem(SUPERGLOBAL["signed_map"], 4.6, eps=1e-8), SUPERGLOBAL["gemp_signed"])
    assert pooling.regional_gem(SUPERGLOBAL["signed_map"]).isnan().all() == SUPERGLOBAL["rgem_signed"].isnan().all()
    assert_equal(pooling.GeM(4.6, regional=True, eps=1e-8)(x), SUPERGLOBAL["gemp_of_rgem"])
    scales = SUPERGLOBAL["scales_in"]
    assert_equal(pooling.combine_scales(scales, "scale-gem"), SUPERGLOBAL["sgem_inf_l2"])
    assert_equal(pooling.combine_scales(scales, "scale-gem", p=10), SUPERGLOBAL["sgem_p10_l2"])
    with pytest.raises(ValueError, match=r"\(2, 2\); both sides must exceed 2"):
        pooling.regional_gem(torch.rand(1, 2, 2, 2))
    with pytest.raises(ValueError, match="'max'; 'mean' or 'scale-gem'"):
        pooling.combine_scales(torch.rand(2, 2, 2), "max")
