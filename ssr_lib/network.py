"""RetrievalNet: image → global descriptor, with the self-similarity embedding, a control, or nothing in between."""

from __future__ import annotations

import hashlib
import inspect
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssr_lib.backbones import create_backbone, seeded
from ssr_lib.depthwise import use_small_map_gradients
from ssr_lib.pooling import Pooling
from ssr_lib.self_similarity import SelfSimilarity, feed_forward_layers

VARIANTS = {"plain": None, "self-similarity": "product", "neighbour": "neighbour", "conv": "conv"}
PLACES = ("mid", "last")


class RetrievalNet(nn.Module):
    """Frozen trunk → [module, place "mid"] → trained tail → [module, place "last"] → pooling → whitening → L2.

    `variant`: "self-similarity", its controls "neighbour" and "conv", or "plain" (no module). Trunk and tail are those
    of `backbones.Backbone`; the trunk is the same for every variant and place, so one set of cached maps serves all.
    `feed_forward`: None means at place "last" only, where "plain" gets it too; at place "mid" it is refused, because
    pretrained layers follow. `initial_gain`: None means 0 where that makes the module start as the identity ("mid" with
    fusion "add" or "concat"), else 1. `product_scale`: None means `mid_channels` (see `SelfSimilarity`).
    `descriptor_dim`: outputs of the linear whitening with bias, which starts as a random orthogonal map; None: no
    whitening. `normalize_pooled`: L2 before the whitening as well. `pooling`, `p`, `regional`: see `pooling.Pooling`.
    `relup`: SuperGlobal's threshold in a ResNet (0.014), None for plain ReLU. `freeze_tail_norm`: the tail's pretrained
    batch norms keep their statistics in training, as the trunk's always do; their gain and bias are trained.
    `pretrained` and `seed` (of every random weight): see `backbones.create_backbone`. Source: docs/method.md.
    """

    def __init__(
        self,
        backbone: str = "tf_efficientnet_lite0",
        variant: str = "self-similarity",
        *,
        place: str = "mid",
        mid_channels: int = 64,
        window: int = 7,
        fusion: str = "add",
        feed_forward: bool | None = None,
        initial_gain: float | None = None,
        product_scale: float | None = None,
        encoder_dtype: str = "float32",
        descriptor_dim: int | None = None,
        normalize_pooled: bool = False,
        pooling: str = "gem",
        p: float = 3.0,
        regional: bool = False,
        relup: float | None = None,
        freeze_tail_norm: bool = True,
        pretrained: str | Path = "package",
        seed: int = 0,
    ):
        super().__init__()
        for value, legal, what in ((variant, VARIANTS, "variant"), (place, PLACES, "place")):
            if value not in legal:
                raise ValueError(f"{what} is {value!r}; one of {', '.join(legal)} is wanted")
        if place == "mid" and feed_forward:
            raise ValueError("feed_forward=True at place 'mid' would feed random layers to pretrained ones; use 'last'")
        feed_forward = place == "last" if feed_forward is None else feed_forward
        if initial_gain is None:
            initial_gain = 0.0 if place == "mid" and fusion in ("add", "concat") else 1.0
        product_scale = float(mid_channels) if product_scale is None else float(product_scale)
        pretrained = str(pretrained)
        arguments = locals()  # every parameter as resolved above
        self.config: dict[str, Any] = {name: arguments[name] for name in inspect.signature(RetrievalNet).parameters}

        self.backbone = create_backbone(backbone, pretrained=pretrained, seed=seed)
        self.backbone.trunk.requires_grad_(False)
        self.trunk_channels: int = self.backbone.trunk_channels
        last_channels = self.backbone.out_channels
        if relup is not None:
            apply_relup(self.backbone.trunk, relup)
        self.embedding = nn.Identity()
        with seeded(seed, "embedding"):
            if variant != "plain":
                self.embedding = SelfSimilarity(
                    self.trunk_channels if place == "mid" else last_channels,
                    mid_channels,
                    window,
                    relation=VARIANTS[variant],
                    fusion=fusion,
                    feed_forward=feed_forward,
                    product_scale=product_scale,
                    initial_gain=initial_gain,
                    encoder_dtype=encoder_dtype,
                )
            elif feed_forward:
                self.embedding = feed_forward_layers(last_channels)
        self.pooling = Pooling(pooling, p, regional)
        self.whitening = None
        if descriptor_dim is not None:
            with seeded(seed, "whitening"):
                self.whitening = nn.Linear(last_channels, descriptor_dim)
                nn.init.orthogonal_(self.whitening.weight)  # keeps angles: training starts from the pooled map's order
                nn.init.zeros_(self.whitening.bias)
        self.descriptor_dim: int = descriptor_dim or last_channels
        self.to(memory_format=torch.channels_last)  # on CPU a third off the time to train the tail
        use_small_map_gradients(self.backbone.tail)
        for module in self.backbone.tail.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.register_forward_hook(keep_channels_last)
        self.train(self.training)

    @classmethod
    def from_config(cls, config: dict[str, Any], **changes: Any) -> RetrievalNet:
        """The net that `config` describes; `changes` replace entries, for example `pretrained="none"`."""
        legal = inspect.signature(cls).parameters
        unknown, missing = [key for key in config if key not in legal], [key for key in legal if key not in config]
        if unknown or missing:
            raise ValueError(f"RetrievalNet configuration: unknown entries {unknown}, missing entries {missing}")
        return cls(**{**config, **changes})

    def trunk(self, images: Tensor) -> Tensor:
        """Normalised images (B, 3, H, W) → the frozen stride-16 map (B, trunk_channels, H/16, W/16)."""
        return self.backbone.trunk(images)

    def head(self, maps: Tensor, *, normalize: bool = True) -> Tensor:
        """Maps from `trunk` → descriptors (B, descriptor_dim), L2-normalised unless `normalize=False`."""
        x = self.pooled(maps)
        if self.whitening is not None:
            x = self.whitening(x)  # (B, D)
        return F.normalize(x, dim=1) if normalize else x

    def pooled(self, maps: Tensor) -> Tensor:
        """Maps from `trunk` → what the whitening sees (B, C): the pooled last map, L2-normalised where the net does that."""
        x = self.pooling(self.features(maps))  # (B, C, H/32, W/32) → (B, C)
        return F.normalize(x, dim=1) if self.config["normalize_pooled"] else x

    def features(self, maps: Tensor) -> Tensor:
        """Maps from `trunk` → the last feature map, which is pooled."""
        if self.config["place"] == "mid":
            return self.backbone.tail(self.embedding(maps))
        return self.embedding(self.backbone.tail(maps))

    def forward(self, images: Tensor, *, normalize: bool = True) -> Tensor:
        """Normalised images (B, 3, H, W) → descriptors (B, descriptor_dim)."""
        return self.head(self.trunk(images), normalize=normalize)

    def train(self, mode: bool = True) -> RetrievalNet:
        """As `nn.Module.train`; frozen batch norms stay in eval mode."""
        super().train(mode)
        self.backbone.trunk.eval()
        if self.config["freeze_tail_norm"]:
            for module in self.backbone.tail.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()
        return self

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """Parameters as "trunk" (frozen), "tail" (pretrained, trained), "new" (module and whitening)."""
        new = [*self.embedding.parameters(), *(self.whitening.parameters() if self.whitening is not None else ())]
        return {
            "trunk": list(self.backbone.trunk.parameters()),
            "tail": list(self.backbone.tail.parameters()),
            "new": new,
        }


def weights_digest(module: nn.Module) -> str:
    """SHA-256 in hexadecimal of a module's parameters and buffers with their names."""
    sha = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        sha.update(name.encode())
        sha.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return sha.hexdigest()


def keep_channels_last(module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
    """Forward hook: the gradient that comes back to `output` gets the order in memory of the map itself.

    Those of padding and pooling arrive in another, in which the layers before take several times as long.
    """
    if output.requires_grad:
        output.register_hook(lambda gradient: gradient.contiguous(memory_format=torch.channels_last))


class ReLUP(nn.Module):
    """max(x, threshold): a ReLU that keeps a small constant. SuperGlobal, Shao et al., ICCV 2023."""

    def __init__(self, threshold: float = 0.014):
        super().__init__()
        self.threshold = threshold

    def forward(self, x: Tensor) -> Tensor:
        return x.clamp(min=self.threshold)


def apply_relup(trunk: nn.Module, threshold: float) -> None:
    """Put ReLUP where SuperGlobal has it: all activations of layer1, the block outputs of layer2, layer3."""
    if not (hasattr(trunk, "layer1") and hasattr(trunk.layer1[0], "act3")):
        raise ValueError("relup is defined for ResNets with bottleneck blocks (resnet50, resnet101); use relup=None")
    for block in trunk.layer1:
        block.act1, block.act2 = ReLUP(threshold), ReLUP(threshold)
    for block in (*trunk.layer1, *trunk.layer2, *trunk.layer3):
        block.act3 = ReLUP(threshold)
