"""RetrievalNet: image → global descriptor. A frozen part, a head (of `ssr_lib.heads` or not), whitening, L2."""

import hashlib
import inspect
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssr_lib.backbones import Backbone, apply_relup, packaged, seeded
from ssr_lib.files import load_part
from ssr_lib.heads import check_choice


class RetrievalNet(nn.Module):
    """Backbone → head → whitening → L2; what is not frozen is trained, every parameter of it. See docs/method.md.

    `backbone`, `pretrained`, `seed` (of all random weights): see `backbones`. `head`, `options`: a head by its name,
    module path or .py file, and its keyword arguments. `protocol`: "end_to_end" freezes `backbone.mid` and trains the
    rest with the head, which gets the stride-16 map for `mid` and `last` and the tail for `project`; "frozen" freezes
    the backbone whole, and the head gets its maps and its `project`. `descriptor_dim`: outputs of the linear whitening,
    which starts as a random orthogonal map; None: no whitening. `normalize_pooled`: L2 before the whitening as well.
    `relup`: SuperGlobal's threshold in a ResNet (0.014). Raises `ValueError` for what is unknown.
    """

    def __init__(
        self,
        backbone: str = "tf_efficientnet_lite0",
        head: str = "plain",
        options: Mapping[str, Any] | None = None,
        *,
        descriptor_dim: int | None = None,
        protocol: str = "end_to_end",
        normalize_pooled: bool = False,
        relup: float | None = None,
        pretrained: str | Path = "package",
        seed: int = 0,
    ):
        super().__init__()
        check_choice("protocol", protocol, ("end_to_end", "frozen"))
        self.end_to_end = protocol == "end_to_end"
        make_head = load_part(head, "heads").Head
        options = all_options(make_head, options or {}, f"head {head!r}")
        given = {"pretrained": pretrained, "seed": seed}
        self.backbone = deepcopy(packaged(backbone)) if pretrained == "package" else Backbone(backbone, **given)
        if self.end_to_end and self.backbone.transformer:
            raise ValueError(f"backbone {backbone!r} is a ViT, and protocol is 'end_to_end'; 'frozen' is wanted")
        if relup is not None:
            apply_relup(self.backbone.mid, relup)
        (self.backbone.mid if self.end_to_end else self.backbone).requires_grad_(False)
        mid, last, projected = self.backbone.channels
        with seeded(seed, "embedding"):
            self.head = make_head((mid, mid if self.end_to_end else last, projected), seed=seed, **options)
        self.wanted = getattr(self.head, "uses_mid", False)
        if self.wanted == "class_token" and not self.backbone.has_class_token:
            raise ValueError(f"backbone {backbone!r} has no class token; head {head!r} wants a ViT with one")
        self.whitening = nn.Identity()
        if descriptor_dim is not None:
            with seeded(seed, "whitening"):
                self.whitening = nn.Linear(self.head.width, descriptor_dim)
                nn.init.orthogonal_(self.whitening.weight)  # keeps angles: training starts from the pooled map's order
                nn.init.zeros_(self.whitening.bias)
        self.descriptor_dim: int = descriptor_dim or self.head.width
        self.config = {"backbone": backbone, "relup": relup, "pretrained": str(pretrained), "seed": seed}
        self.config |= {"head": head, "options": options, "protocol": protocol}
        self.config |= {"descriptor_dim": descriptor_dim, "normalize_pooled": normalize_pooled}
        self.to(memory_format=torch.channels_last)  # on CPU a third off the time to train the tail

    def maps(self, images: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """Normalised images (B, 3, H, W) → frozen `mid` and `last`, None where not needed; or class token, None."""
        if self.wanted == "class_token":
            return self.backbone.class_token(images), None
        if self.end_to_end:
            return self.backbone.mid(images), None
        mid, last = self.backbone(images)
        return (mid if self.wanted else None), last

    def inputs(self, mid: Tensor | None, last: Tensor | None) -> tuple[Tensor | None, Tensor, nn.Module]:
        """Maps from `maps` → what the head is called with, in the order in memory in which convolutions are fastest."""
        mid, last = (x if x is None else x.contiguous(memory_format=torch.channels_last) for x in (mid, last))
        if self.end_to_end:
            return mid, mid, self.backbone.tail
        return mid, last, self.backbone.project

    def pooled(self, mid: Tensor | None, last: Tensor | None) -> Tensor:
        """Maps from `maps` → what the whitening sees (B, C): the head's feature, L2-normalised if so configured."""
        x = self.head(*self.inputs(mid, last))
        return F.normalize(x, dim=1) if self.config["normalize_pooled"] else x

    def from_maps(self, mid: Tensor | None, last: Tensor | None, *, normalize: bool = True) -> Tensor:
        """Maps from `maps` → descriptors (B, descriptor_dim), L2-normalised unless `normalize=False`."""
        x = self.whitening(self.pooled(mid, last))  # (B, D)
        return F.normalize(x, dim=1) if normalize else x

    def forward(self, images: Tensor, *, normalize: bool = True) -> Tensor:
        """Normalised images (B, 3, H, W) → descriptors (B, descriptor_dim)."""
        return self.from_maps(*self.maps(images), normalize=normalize)

    def train(self, mode: bool = True) -> nn.Module:
        """As `nn.Module.train`; the backbone stays in evaluation mode, for the sake of its pretrained batch norms."""
        super().train(mode)
        self.backbone.eval()
        return self

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """Every parameter as "frozen", "tail" (pretrained, trained) or "new" (head and whitening)."""
        tail = list(self.backbone.tail.parameters()) if self.end_to_end else []
        new = [parameter for name, parameter in self.named_parameters() if not name.startswith("backbone.")]
        frozen = self.backbone.mid if self.end_to_end else self.backbone
        return {"frozen": list(frozen.parameters()), "tail": tail, "new": new}


def all_options(kind: type, options: Mapping[str, Any], name: str) -> dict[str, Any]:
    """All options of a head or loss, from `options` or by default; raises `ValueError` for one it does not have."""
    parameters = inspect.signature(kind).parameters.values()
    defaults = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY and p.name != "seed"}
    unknown = ", ".join(sorted(options.keys() - defaults.keys()))
    if unknown and not any(p.kind is p.VAR_KEYWORD for p in parameters):
        raise ValueError(f"{name} has no option {unknown}; it has {', '.join(defaults) or 'none'}")
    return {key: value for key, value in {**defaults, **options}.items() if value is not inspect.Parameter.empty}


def weights_digest(module: nn.Module) -> str:
    """SHA-256 in hexadecimal of a module's parameters and buffers with their names and shapes."""
    sha = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        sha.update(f"{name} {tuple(value.shape)}".encode())
        sha.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return sha.hexdigest()
