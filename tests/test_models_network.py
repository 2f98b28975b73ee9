"""RetrievalNet: what is frozen, what starts as what, and that its configuration rebuilds it."""

import json

import pytest
import torch
from torch import nn

from ssr_lib.network import VARIANTS, RetrievalNet

IMAGES = torch.rand(2, 3, 96, 128, generator=torch.Generator().manual_seed(0)) * 2 - 1


def small(variant="self-similarity", **options):
    return RetrievalNet(
        "mobilenetv3_small_050", variant, pretrained="none", **{"mid_channels": 8, "window": 5} | options
    )


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("place", ["mid", "last"])
def test_every_variant_serves_the_same_cached_maps(variant, place):
    net, plain = small(variant, place=place, descriptor_dim=32), small("plain")
    maps = plain.trunk(IMAGES)
    assert maps.shape == (2, net.trunk_channels, 6, 8)
    assert torch.equal(net.trunk(IMAGES), maps)
    kept, descriptors = maps.clone(), net.eval().head(maps)
    assert torch.equal(maps, kept), "the head leaves the cached maps as they are"
    assert descriptors.shape == (2, net.descriptor_dim) == (2, 32)
    torch.testing.assert_close(descriptors.norm(dim=1), torch.ones(2))
    torch.testing.assert_close(net(IMAGES), descriptors)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("fusion", ["add", "concat"])
def test_module_in_the_middle_starts_as_the_identity(variant, fusion):
    net, plain = small(variant, fusion=fusion).eval(), small("plain").eval()
    with torch.inference_mode():
        torch.testing.assert_close(net(IMAGES), plain(IMAGES), rtol=0, atol=1e-6)


def test_training_moves_tail_and_new_layers_and_leaves_the_trunk():
    net = small(descriptor_dim=16, initial_gain=1).train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    groups = net.parameter_groups()
    assert sum(len(group) for group in groups.values()) == len(list(net.parameters()))
    optimizer = torch.optim.SGD([*groups["tail"], *groups["new"]], lr=0.1)
    net(IMAGES)[:, 0].sum().backward()
    assert all(p.grad is None and not p.requires_grad for p in groups["trunk"])
    optimizer.step()
    moved = {name for name, value in net.state_dict().items() if not torch.equal(value, before[name])}
    assert not any(name.startswith("backbone.trunk") for name in moved)
    assert not any("running" in name for name in moved if name.startswith("backbone.tail")), "frozen batch norms"
    assert any("running" in name for name in moved if name.startswith("embedding")), "its own batch norms learn"
    assert {"whitening.weight", "embedding.expand.1.weight", "backbone.tail.blocks.5.0.conv.weight"} <= moved


def test_frozen_batch_norms_stay_in_eval_mode():
    norms = lambda module: [m.training for m in module.modules() if isinstance(m, nn.BatchNorm2d)]
    net = small().train()
    assert not any(norms(net.backbone)) and all(norms(net.embedding))
    free = small(freeze_tail_norm=False).train()
    assert not any(norms(free.backbone.trunk)) and all(norms(free.backbone.tail))


def test_configuration_is_json_and_rebuilds_the_same_net():
    net = small("neighbour", place="last", descriptor_dim=8, seed=3).eval()
    again = RetrievalNet.from_config(json.loads(json.dumps(net.config))).eval()
    with torch.inference_mode():
        assert torch.equal(again(IMAGES), net(IMAGES))
    assert again.config == net.config
    with pytest.raises(ValueError, match=r"unknown entries \['colour'\], missing entries \['seed'\]"):
        RetrievalNet.from_config({key: value for key, value in net.config.items() if key != "seed"} | {"colour": 1})


def test_parts_are_drawn_from_the_seed_whatever_the_others_are():
    one, other = small(seed=1, descriptor_dim=16), small("plain", seed=1, descriptor_dim=16)
    assert torch.equal(one.whitening.weight, other.whitening.weight)
    assert torch.equal(one.embedding.reduce.weight, small("neighbour", seed=1).embedding.reduce.weight)
    assert not torch.equal(one.whitening.weight, small(seed=2, descriptor_dim=16).whitening.weight)


def test_whitening_starts_as_a_rotation_that_keeps_similarities():
    net, bare = small("plain", descriptor_dim=288).eval(), small("plain").eval()
    with torch.inference_mode():
        a, b = net(IMAGES), bare(IMAGES)
    torch.testing.assert_close(a @ a.T, b @ b.T, rtol=0, atol=1e-5)


def test_last_place_has_a_feed_forward_for_every_variant_alike():
    sizes = {v: sum(p.numel() for p in small(v, place="last").parameter_groups()["new"]) for v in VARIANTS}
    assert sizes["plain"] == 2 * (288 * 288 + 288)
    assert sizes["self-similarity"] == sizes["neighbour"] == sizes["conv"] > sizes["plain"]


def test_errors_say_what_is_legal():
    for options, message in (
        ({"variant": "ssm"}, "variant is 'ssm'; one of plain, self-similarity"),
        ({"place": "first"}, "place is 'first'; one of mid, last"),
        ({"fusion": "sum"}, "fusion is 'sum'; one of add, concat, gate, only"),
        ({"window": 4}, "window is 4; an odd whole number"),
        ({"feed_forward": True}, "use 'last'"),
        ({"fusion": "only", "initial_gain": 0}, "zeros that never learns"),
        ({"relup": 0.014}, "bottleneck"),
    ):
        with pytest.raises(ValueError, match=message):
            small(**options)


def test_gradients_run_through_the_tail_in_the_order_of_its_maps():
    """In the other order batch norms took ten times as long."""
    net, seen = small("plain"), []
    for module in net.backbone.tail.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.register_full_backward_hook(lambda module, inputs, outputs: seen.append(outputs[0]))
    net.head(net.trunk(IMAGES)).sum().backward()
    assert seen and all(gradient.is_contiguous(memory_format=torch.channels_last) for gradient in seen)
