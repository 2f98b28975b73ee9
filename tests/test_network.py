"""RetrievalNet: what is frozen and what is trained, what starts as what, and what it takes."""

import numpy as np
import pytest
import torch
from PIL import Image

from ssr_lib.backbones import pretrained_preprocess
from ssr_lib.extract import compute_maps, describe, describe_maps, pooled_features
from ssr_lib.images import to_tensors
from ssr_lib.network import RetrievalNet

IMAGES = torch.rand(2, 3, 96, 128, generator=torch.Generator().manual_seed(0)) * 2 - 1
HEADS = ("plain", "product", "neighbour", "conv")


def small(head="product", protocol="end_to_end", *, backbone="test_efficientnet", descriptor_dim=None, seed=0,
          relup=None, **options):  # fmt: skip
    if head in HEADS[1:]:
        options = {"mid_channels": 8, "window": 5} | options
    how = {"descriptor_dim": descriptor_dim, "protocol": protocol, "relup": relup, "seed": seed}
    return RetrievalNet(backbone, head, options, pretrained="none", **how)


@pytest.mark.parametrize("protocol", ["end_to_end", "frozen"])
@pytest.mark.parametrize("head", [*HEADS, "structural"])
def test_every_head_describes_maps_as_it_describes_images(head, protocol):
    net = small(head, protocol, descriptor_dim=32).eval()
    with torch.inference_mode():
        descriptors = net.from_maps(*net.maps(IMAGES))
        torch.testing.assert_close(net(IMAGES), descriptors)
    assert descriptors.shape == (2, net.descriptor_dim) == (2, 32)
    torch.testing.assert_close(descriptors.norm(dim=1), torch.ones(2))


@pytest.mark.parametrize("protocol", ["end_to_end", "frozen"])
@pytest.mark.parametrize("head", HEADS)
def test_ten_steps_move_every_parameter_that_is_not_frozen(head, protocol):
    net = small(head, protocol, descriptor_dim=16, learn_p=True).train()
    groups = net.parameter_groups()
    assert sum(len(group) for group in groups.values()) == len(list(net.parameters()))
    frozen = net.backbone if protocol == "frozen" else net.backbone.mid
    assert {id(p) for p in groups["frozen"]} == {id(p) for p in frozen.parameters()}
    assert not any(p.requires_grad for p in groups["frozen"])
    before = {name: value.clone() for name, value in net.state_dict().items()}
    optimizer = torch.optim.AdamW([*groups["tail"], *groups["new"]], lr=1e-3, weight_decay=0)
    for _ in range(10):
        optimizer.zero_grad()
        net(IMAGES)[:, 0].sum().backward()
        optimizer.step()
    moved = {name for name, value in net.state_dict().items() if not torch.equal(value, before[name])}
    assert {name for name, p in net.named_parameters() if p.requires_grad} <= moved and "head.pooling.p" in moved
    assert not any(name.startswith("backbone.mid") or (protocol == "frozen" and "backbone" in name) for name in moved)
    assert not any("running" in name for name in moved if name.startswith("backbone")), "frozen batch norms"
    assert any("running" in name for name in moved) == (head != "plain"), "a head's own batch norms learn"


def test_whitening_is_a_rotation_drawn_from_the_seed_that_keeps_similarities():
    nets = small(seed=1, descriptor_dim=16), small("plain", seed=1, descriptor_dim=16), small(seed=2, descriptor_dim=16)
    one, same, other = (net.whitening.weight for net in nets)
    assert torch.equal(one, same) and not torch.equal(one, other)
    with torch.inference_mode():
        a, b = small("plain", descriptor_dim=256).eval()(IMAGES), small("plain").eval()(IMAGES)
    torch.testing.assert_close(a @ a.T, b @ b.T, rtol=0, atol=1e-5)


@pytest.mark.parametrize("head", ["plain", "class_token", "dolg"])
def test_a_vit_describes_pictures_of_different_sizes_from_files_and_from_stored_maps(head, tmp_path):
    pictures = [np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8) for shape in ((70, 150), (33, 20))]
    files = [tmp_path / f"{len(picture)}.png" for picture in pictures]
    for file, picture in zip(files, pictures, strict=True):
        Image.fromarray(picture).save(file)
    net = small(head, "frozen", backbone="vit_tiny_patch16_224", descriptor_dim=32).eval()
    preprocess = pretrained_preprocess("vit_tiny_patch16_224")
    with torch.inference_mode():
        expected = torch.cat([net(to_tensors(picture, preprocess)[0][None]) for picture in pictures])
    np.testing.assert_allclose(describe(net, files, preprocess), expected, atol=1e-5)
    maps = compute_maps(net, files, preprocess, tmp_path / "maps", progress=False)
    assert (maps.mid is None, maps.last is None) == (head == "plain", head == "class_token"), "stored is what is used"
    assert head != "class_token" or maps.mid[0].shape == (1, 1, 192)
    np.testing.assert_allclose(describe_maps(net, maps), expected, atol=1e-2)  # from float16
    many = pooled_features(net, maps.take([0] * 128 + [1]))  # what a head gives may be a view of its maps
    np.testing.assert_allclose(many[0], pooled_features(net, maps)[0], atol=1e-5)


@pytest.mark.parametrize(("arguments", "message"), [
    ({"head": "plain", "windw": 3}, "head 'plain' has no option windw; it has feed_forward, p, learn_p"),
    ({"window": 4}, "window is 4; an odd whole number of at least 3"),
    ({"protocol": "half"}, "protocol is 'half'; one of end_to_end, frozen"), ({"relup": 0.014}, "bottleneck"),
    ({"backbone": "vit_tiny_patch16_224"}, "is a ViT, and protocol is 'end_to_end'; 'frozen' is wanted"),
    ({"head": "class_token"}, "'test_efficientnet' has no class token; head 'class_token' wants a ViT with one"),
    ({"head": "class_token", "protocol": "frozen", "backbone": "vit_wee_patch16_reg1_gap_256"}, "no class token"),
])  # fmt: skip
def test_errors_say_what_is_legal(arguments, message):
    with pytest.raises(ValueError, match=message):
        small(**arguments)
