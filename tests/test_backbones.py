"""Backbones: packaged weights under timm's names, the cut into three pieces, ViTs, and the seed of random weights."""

import pytest
import timm
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from ssr_lib.backbones import Backbone, create_model, pretrained_preprocess
from ssr_lib.images import Preprocess


def test_three_pieces_of_lite0_are_timm_s_features_and_its_packaged_weights_know_imagenet():
    image, backbone = torch.rand(2, 3, 160, 128) * 2 - 1, Backbone("tf_efficientnet_lite0", pretrained="package")
    whole = create_model("tf_efficientnet_lite0", "package").eval()
    with torch.inference_mode():
        mid, last = backbone(image)
        projected = backbone.project(last)
        assert backbone.channels == (112, 320, 1280)
        assert [x.shape[1:] for x in (mid, last, projected)] == [(112, 10, 8), (320, 5, 4), (1280, 5, 4)]
        assert torch.equal(projected, whole.forward_features(image)) and torch.equal(backbone.tail(mid), projected)
        # a grey ramp gets the logits that were recorded when these weights were found equal to those of their program
        best = whole(torch.linspace(-1, 1, 224).expand(1, 3, 224, 224)).topk(3)
    assert best.indices.tolist() == [[534, 499, 901]]
    torch.testing.assert_close(best.values, torch.tensor([[6.0835, 5.5409, 4.9812]]), rtol=0, atol=2e-3)


@pytest.mark.parametrize(("name", "channels"), [
    ("resnet18", (256, 512, 512)), ("convnext_atto", (160, 320, 320)), ("mobilenetv3_small_050", (24, 288, 288)),
])  # fmt: skip
def test_other_networks_are_cut_at_strides_16_and_32(name, channels):
    backbone = Backbone(name, pretrained="none").eval()
    mid, last = backbone(torch.zeros(1, 3, 96, 64))
    assert backbone.channels == channels and backbone.name == name
    assert (mid.shape, last.shape) == ((1, channels[0], 6, 4), (1, channels[1], 3, 2))


@pytest.mark.parametrize(("name", "patch", "front"), [  # patch in pixels, number of other tokens
    ("vit_tiny_patch16_224", 16, 1), ("vit_small_patch14_reg4_dinov2", 14, 5), ("vit_small_patch16_dinov3", 16, 5),
    ("vit_xsmall_patch16_clip_224", 16, 1), ("vit_base_patch16_siglip_224", 16, 0),
])  # fmt: skip
def test_maps_of_a_vit_are_timm_s_patch_tokens_at_any_size(name, patch, front):
    backbone, behind = Backbone(name, pretrained="none"), []  # what its block gives at three quarters of the way
    model = backbone.mid  # timm's
    model.blocks[len(model.blocks) * 3 // 4 - 1].register_forward_hook(lambda *call: behind.append(call[2]))
    for height, width, places in ((4 * patch, 6 * patch, (4, 6)), (2 * patch + 1, patch - 1, (3, 1))):
        image = torch.rand(2, 3, height, width) * 2 - 1
        with torch.inference_mode():
            tokens = model.forward_features(F.pad(image, (0, -width % patch, 0, -height % patch)))
            whole = tokens[:, 0] if front else model.forward_head(tokens, pre_logits=True)
            torch.testing.assert_close(backbone.class_token(image)[:, :, 0, 0], whole, rtol=0, atol=1e-5)
            for found, expected in zip(backbone(image), (behind[0], tokens), strict=True):
                assert found.shape == (2, backbone.channels[1], *places)
                torch.testing.assert_close(found.flatten(2).mT, expected[:, front:], rtol=0, atol=1e-5)
        behind.clear()


def test_the_preparation_of_a_vit_is_that_of_timm_s_data_configuration():
    how = {"mean": (0.48145466, 0.4578275, 0.40821073), "std": (0.26862954, 0.26130258, 0.27577711), "size": 224}
    expected = Preprocess(interpolation_down="bicubic", interpolation_up="cubic", **how)
    assert pretrained_preprocess("vit_base_patch16_clip_224.openai") == expected


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


@pytest.mark.parametrize(("name", "pretrained", "message"), [
    ("resnet18", "package", r"'resnet18' has no weights in a package; 'hub'"),
    ("resnet18", "weights.bin", r"no timm model 'resnet18' with pretrained='weights\.bin': No such file"),
    ("xcit_nano_12_p16_224", "none", r"xcit_nano_12_p16_224' cannot .* a ViT, or layers in sequence"),
    ("xception41", "none", r"xception41' cannot be cut in three; .*maps at stride 16 and 32, is wanted"),
])  # fmt: skip
def test_errors_say_what_would_work(name, pretrained, message):
    with pytest.raises(ValueError, match=message):
        Backbone(name, pretrained=pretrained)
