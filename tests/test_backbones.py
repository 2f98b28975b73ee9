"""Backbones: packaged weights under timm's names, the cut into three pieces, and the seed of random weights."""

import pytest
import timm
import torch
from safetensors.torch import save_file

from ssr_lib.backbones import Backbone, create_model


@pytest.fixture(scope="module")
def lite0():
    return create_model("tf_efficientnet_lite0", "package").eval()


def test_three_pieces_of_lite0_are_timm_s_features(lite0):
    image = torch.rand(2, 3, 160, 128) * 2 - 1
    backbone = Backbone("tf_efficientnet_lite0", pretrained="package")
    with torch.inference_mode():
        mid, last = backbone(image)
        projected = backbone.project(last)
        assert backbone.channels == (112, 320, 1280)
        assert [x.shape[1:] for x in (mid, last, projected)] == [(112, 10, 8), (320, 5, 4), (1280, 5, 4)]
        assert torch.equal(projected, lite0.forward_features(image))
        assert torch.equal(backbone.tail(mid), projected)


def test_packaged_weights_know_imagenet(lite0):
    """A grey ramp gets the logits that were recorded when these weights were found equal to those of their program."""
    with torch.inference_mode():
        best = lite0(torch.linspace(-1, 1, 224).expand(1, 3, 224, 224)).topk(3)
    assert best.indices.tolist() == [[534, 499, 901]]
    torch.testing.assert_close(best.values, torch.tensor([[6.0835, 5.5409, 4.9812]]), rtol=0, atol=2e-3)


CHANNELS = {"resnet18": (256, 512, 512), "resnet50": (1024, 2048, 2048)}
CHANNELS |= {"convnext_atto": (160, 320, 320), "mobilenetv3_small_050": (24, 288, 288)}


@pytest.mark.parametrize(("name", "channels"), CHANNELS.items())
def test_other_networks_are_cut_at_strides_16_and_32(name, channels):
    backbone = Backbone(name, pretrained="none").eval()
    mid, last = backbone(torch.zeros(1, 3, 96, 64))
    assert backbone.channels == channels and backbone.name == name
    assert (mid.shape, last.shape) == ((1, channels[0], 6, 4), (1, channels[1], 3, 2))


def test_random_weights_come_from_the_seed_alone():
    torch.manual_seed(1)
    one, before = Backbone("resnet18", pretrained="none", seed=5), torch.rand(1)
    torch.manual_seed(1)
    again, other = (Backbone("resnet18", pretrained="none", seed=seed) for seed in (5, 6))
    assert torch.equal(one.mid.conv1.weight, again.mid.conv1.weight)
    assert not torch.equal(one.mid.conv1.weight, other.mid.conv1.weight)
    assert torch.equal(before, torch.rand(1)), "the global generator is left alone"


def test_weights_from_a_file_are_loaded_and_wrong_ones_named(tmp_path):
    model = timm.create_model("resnet18", pretrained=False)
    state = {f"module._orig_mod.{name}": value.clone() for name, value in model.state_dict().items()}
    save_file(state, tmp_path / "r.safetensors")
    backbone = Backbone("resnet18", pretrained=tmp_path / "r.safetensors")
    assert torch.equal(backbone.last.layer4[1].conv2.weight, model.layer4[1].conv2.weight)
    with pytest.raises(ValueError, match=r"no timm model 'resnet26' with .*r\.safetensors': .*Missing key"):
        Backbone("resnet26", pretrained=tmp_path / "r.safetensors")


@pytest.mark.parametrize(
    ("name", "pretrained", "message"),
    [
        ("resnet18", "package", r"'resnet18' has no weights in a package; 'hub'"),
        ("resnt18", "none", r"no timm model 'resnt18' .*Unknown model"),
        ("resnet18", "weights.bin", r"no timm model 'resnet18' with pretrained='weights\.bin': No such file"),
        ("vit_tiny_patch16_224", "none", r"vit_tiny_patch16_224' cannot be cut in three .*stride 16 and 32"),
        ("xception41", "none", r"xception41' cannot be cut in three .*a plain sequence of layers"),
    ],
)
def test_errors_say_what_would_work(name, pretrained, message):
    with pytest.raises(ValueError, match=message):
        Backbone(name, pretrained=pretrained)
