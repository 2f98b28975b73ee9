"""The faster gradient of small depthwise layers is the gradient, and is used only where it is meant to be."""

import pytest
import torch
from torch import nn

from ssr_lib.depthwise import Depthwise, SmallMapDepthwise, offsets, use_small_map_gradients
from ssr_lib.network import RetrievalNet


def layer(**changes):
    torch.manual_seed(0)
    return nn.Conv2d(6, 6, **{"kernel_size": 5, "padding": 2, "groups": 6, "bias": False, **changes})


@pytest.mark.parametrize("size", [(5, 5), (4, 4), (3, 6), (1, 2)])
def test_output_and_gradients_are_those_of_pytorch(size):
    x = torch.randn(7, 6, *size, generator=torch.Generator().manual_seed(1)).to(memory_format=torch.channels_last)
    results = []
    for quick in (False, True):
        module, own = layer(), x.clone().requires_grad_()
        if quick:
            use_small_map_gradients(module)
        y = module(own)
        (y * torch.arange(y.numel()).view_as(y)).sum().backward()
        results.append((y, own.grad, module.weight.grad))
    assert type(module) is SmallMapDepthwise
    for plain, quick in zip(*results, strict=True):
        torch.testing.assert_close(quick, plain, rtol=1e-4, atol=1e-3)


def test_gradient_passes_the_numerical_check():
    x = torch.randn(2, 3, 3, 4, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(3, 1, 5, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(Depthwise.apply, (x, weight))


def test_pairs_of_places_by_hand():
    """On a map of one row and two places with 3 × 3 weights: a place meets itself at (1, 1), its neighbours beside it."""
    joined = offsets(1, 2, 3).view(2, 2, 9)
    assert joined.argmax(-1).tolist() == [[4, 5], [3, 4]] and joined.sum() == 4


@pytest.mark.parametrize("change", [{"stride": 2}, {"padding": 1}, {"groups": 1}, {"bias": True}, {"kernel_size": 3}])
def test_other_layers_stay_as_they_are(change):
    module = layer(**change)
    use_small_map_gradients(module)
    assert type(module) is nn.Conv2d


def test_a_tail_has_such_layers_and_its_weights_keep_their_names():
    net = RetrievalNet("tf_efficientnet_lite0", "plain", pretrained="none", descriptor_dim=8)
    names = [name for name, module in net.backbone.tail.named_modules() if isinstance(module, SmallMapDepthwise)]
    assert len(names) == 3 and all(f"backbone.tail.{name}.weight" in net.state_dict() for name in names)
