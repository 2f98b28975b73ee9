"""Backbones: packaged weights under timm's names, the cut into trunk and tail, and the seed of random weights."""

import pytest
import timm
import torch
from safetensors.torch import save_file

from ssr_lib.backbones import Backbone, create_backbone, packaged_model, seeded


@pytest.fixture(scope="module")
def lite0():
    return packaged_model("tf_efficientnet_lite0").eval()


def test_trunk_and_tail_of_lite0_are_timm_s_features(lite0):
    image = torch.rand(2, 3, 160, 128) * 2 - 1
    backbone = Backbone(lite0, "tf_efficientnet_lite0")
    with torch.inference_mode():
        middle = backbone.trunk(image)
        assert middle.shape == (2, backbone.trunk_channels, 10, 8) == (2, 112, 10, 8)
        last = backbone.tail(middle)
        assert last.shape == (2, backbone.out_channels, 5, 4) == (2, 1280, 5, 4)
        assert torch.equal(last, lite0.forward_features(image))


def test_packaged_weights_know_imagenet(lite0):
    """A grey ramp gets the logits that were recorded when these weights were found equal to their original program's."""
    with torch.inference_mode():
        best = lite0(torch.linspace(-1, 1, 224).expand(1, 3, 224, 224)).topk(3)
    assert best.indices.tolist() == [[534, 499, 901]]
    torch.testing.assert_close(best.values, torch.tensor([[6.0835, 5.5409, 4.9812]]), rtol=0, atol=2e-3)


@pytest.mark.parametrize(
    ("name", "middle", "last"), [("resnet18", 256, 512), ("resnet50", 1024, 2048), ("convnext_atto", 160, 320)]
)
def test_other_networks_are_cut_at_stride_16(name, middle, last):
    backbone = create_backbone(name, pretrained="none").eval()
    assert (backbone.trunk_channels, backbone.out_channels) == (middle, last)
    assert backbone.trunk(torch.zeros(1, 3, 96, 64)).shape == (1, middle, 6, 4)


def test_random_weights_come_from_the_seed_alone():
    torch.manual_seed(1)
    one, before = create_backbone("resnet18", pretrained="none", seed=5), torch.rand(1)
    torch.manual_seed(1)
    again, other = (create_backbone("resnet18", pretrained="none", seed=seed) for seed in (5, 6))
    assert torch.equal(one.trunk.conv1.weight, again.trunk.conv1.weight)
    assert not torch.equal(one.trunk.conv1.weight, other.trunk.conv1.weight)
    assert torch.equal(before, torch.rand(1)), "the global generator is left alone"
    with seeded(5, "a"):
        first = torch.rand(1)
    with seeded(5, "b"):
        assert not torch.equal(first, torch.rand(1))


def test_weights_from_a_file_are_loaded_and_wrong_ones_named(tmp_path):
    model = timm.create_model("resnet18", pretrained=False)
    save_file({name: value.clone() for name, value in model.state_dict().items()}, tmp_path / "r.safetensors")
    backbone = create_backbone("resnet18", pretrained=tmp_path / "r.safetensors")
    assert torch.equal(backbone.tail.layer4[1].conv2.weight, model.layer4[1].conv2.weight)
    with pytest.raises(ValueError, match=r"r\.safetensors does not hold the weights of resnet26"):
        create_backbone("resnet26", pretrained=tmp_path / "r.safetensors")


def test_errors_say_what_would_work():
    with pytest.raises(ValueError, match=r"'resnet18' has no weights in a package.*tf_efficientnet_lite0"):
        create_backbone("resnet18", pretrained="package")
    with pytest.raises(ValueError, match="'resnt18' is no timm model"):
        create_backbone("resnt18", pretrained="none")
    with pytest.raises(ValueError, match=r"'weights\.bin'.*existing \.safetensors"):
        create_backbone("resnet18", pretrained="weights.bin")
    with pytest.raises(ValueError, match="vit_tiny_patch16_224"):
        create_backbone("vit_tiny_patch16_224", pretrained="none")
