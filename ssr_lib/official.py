"""Published weights of SENet, CVNet and cirtorch's GeM networks, read once and written as checkpoints.

`official_head` also reads the head of the independent implementation of reading B, family "attention".
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from ssr_lib.backbones import plain_names
from ssr_lib.files import hash_file, read_json
from ssr_lib.heads import attention, check_choice, plain, product
from ssr_lib.images import PRESETS
from ssr_lib.network import RetrievalNet
from ssr_lib.weights import check_tensors, checkpoint_files, inside, read_file, save_checkpoint

FAMILIES = {"senet": "senet", "cvnet": "cvnet", "gem": "cirtorch"}  # and how their pictures are prepared
SUPERGLOBAL = {"options": {"p": 4.6, "regional": True, "eps": 1e-8}, "relup": 0.014, "normalize_pooled": True}
"""Changes that make `load_official(path, "cvnet", **SUPERGLOBAL)` SuperGlobal's extractor (Shao et al., ICCV 2023)."""

_WRAPPERS = ("state_dict", "model_state", "model_state_dict", "model")
_DEPTHS = {6: "resnet50", 23: "resnet101", 36: "resnet152"}  # by the number of blocks in the third stage
_POOL_P = {"cvnet": "head.pool.p", "gem": "pool.p"}
_BACKBONE = {"senet": r"(stem|s[1-4])\.", "cvnet": r"(stem|s[1-4])\.", "gem": r"features\."}  # its names
_PYCLS_LAYERS = {"conv1": "f.a", "bn1": "f.a_bn", "conv2": "f.b", "bn2": "f.b_bn", "conv3": "f.c", "bn3": "f.c_bn"}
_PYCLS_LAYERS |= {"downsample.0": "proj", "downsample.1": "bn"}
_SENET = {"head.reduce": "SSM.ch_reduction_encoder", "head.encoder": "SSM.SSE.conv_in"}
_SENET |= {"head.expand": "SSM.SSE.conv1x1_out", "head.feed_forward": "SSM.FFN"}
_ATTENTION = {"head.reduce": "input_projection", "head.score": "attention", "head.encoder": "tensor_encoder.blocks"}
_ATTENTION |= {"head.expand": "tensor_encoder.restore", "head.norm": "initial_norm"}
_ATTENTION |= {"head.feed_forward": "feature_fusion", "head.pooling.p": "gem_p"}
_RENAMED = {"senet": _SENET, "attention": _ATTENTION}


def read_official(
    path_or_state: Path | str | Mapping[str, Any], family: str, families: tuple[str, ...] = tuple(FAMILIES)
) -> tuple[dict[str, Tensor], str]:
    """The tensors of a published checkpoint under their published names, and what to call it in an error."""
    check_choice("family", family, families)
    state, source = path_or_state, f"this state ({family})"
    if not isinstance(state, Mapping):
        source = f"{state} ({family})"
        state = read_file(Path(state), source)
    while isinstance(state, Mapping) and (found := [w for w in _WRAPPERS if isinstance(state.get(w), Mapping)]):
        state = state[found[0]]
    check_tensors(state, source)
    state = plain_names(state)
    if family == "cvnet" and any(name.startswith("encoder_q.") for name in state):
        # the published file holds CVNet's local re-ranking network too, which is another model
        other = ("conv2ds.", "cv_learner.")
        state = {name.removeprefix("encoder_q."): v for name, v in state.items() if not name.startswith(other)}
    return {name: value for name, value in state.items() if not name.endswith("num_batches_tracked")}, source


def official_config(state: Mapping[str, Tensor], family: str) -> dict[str, Any]:
    """What the shapes of a published state say about the net, as arguments of `RetrievalNet`."""
    blocks = count(r"(?:s3|features\.6)\.(b?\d+)\.", state)
    linear = official_linear(state, family)
    config: dict[str, Any] = {
        "backbone": _DEPTHS[min((depth for depth in _DEPTHS if depth >= blocks), default=36)],
        "head": "plain",
        "options": {},
        "descriptor_dim": None if linear is None else rows(state, f"{linear}.weight", 2048),
        "normalize_pooled": family == "gem" and linear is not None,  # cirtorch: L2 on both sides of its whitening
        "pretrained": "none",
    }
    if family == "senet":
        config["head"] = "product"
        config["options"] = {
            "place": "last",
            "mid_channels": rows(state, "SSM.ch_reduction_encoder.weight", 256),
            "window": 2 * max(1, count(r"SSM\.SSE\.conv_in\.(\d+)\.", state)) + 1,
            "product_scale": 1.0,  # the published arithmetic
        }
    elif _POOL_P[family] in state:
        p = state[_POOL_P[family]]
        if p.numel() != 1 or not p.item() > 0:
            raise ValueError(f"{_POOL_P[family]} is {p.flatten()[:5].tolist()}; one positive exponent is wanted")
        config["options"] = {"p": p.item()}
    return config


def attention_config(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """What the shapes of a published head of reading B say about it; it stands before no whitening."""
    c = rows(state, "initial_norm.weight", 512)
    window = 2 * max(1, count(r"tensor_encoder\.blocks\.(\d+)\.", state)) + 1
    projection = state.get("input_projection.0.weight")  # absent where X has c channels
    inside = c if projection is None or projection.ndim != 4 else projection.shape[1]
    options = {"mid_channels": c, "window": window, "start": "random"}
    found = {"head": "attention", "options": options, "channels": inside}
    return found | {"normalize_pooled": False, "descriptor_dim": None}


def count(pattern: str, state: Mapping[str, Tensor]) -> int:
    """How many different things the group of `pattern` finds at the start of the names of `state`."""
    return len({match[1] for match in map(re.compile(pattern).match, state) if match})


def rows(state: Mapping[str, Tensor], name: str, usual: int) -> int:
    """Length of a tensor; the usual one where it is missing or a number, which `load_renamed` will say."""
    return len(state[name]) if name in state and state[name].ndim else usual


def official_linear(state: Mapping[str, Tensor], family: str) -> str | None:
    """Name of the last linear layer; a cirtorch net may be without."""
    if family != "gem":
        return "head.fc"
    return next((name for name in ("whiten", "fc") if any(key.startswith(f"{name}.") for key in state)), None)


def official_name(ours: str, state: Mapping[str, Tensor], family: str) -> str:
    """What `family` calls our parameter."""
    layer, _, kind = ours.rpartition(".")
    if layer == "whitening":
        return f"{official_linear(state, family)}.{kind}"
    for prefix, published in _RENAMED.get(family, {}).items():
        if ours.startswith(prefix):
            return ours.replace(prefix, published, 1)
    name = re.sub(r"^backbone\.(mid|last)\.", "", layer)
    block = re.fullmatch(r"layer(\d)\.(\d+)\.(.+)", name)
    if family == "gem":  # torchvision's ResNet without its names: conv1 is 0, bn1 is 1, layer1 is 4
        first = {"conv1": "0", "bn1": "1"}.get(name)
        return f"features.{first or f'{int(block[1]) + 3}.{block[2]}.{block[3]}'}.{kind}"
    if block is None:
        return f"stem.{name.removesuffix('1')}.{kind}"
    return f"s{block[1]}.b{int(block[2]) + 1}.{_PYCLS_LAYERS[block[3]]}.{kind}"


def load_renamed(module: nn.Module, state: Mapping[str, Tensor], family: str, source: str) -> None:
    """Load a published state into our module; names that are missing or unexpected raise `ValueError` with a list."""
    own = {name: value for name, value in module.state_dict().items() if "num_batches" not in name}
    names = {ours: official_name(ours, state, family) for ours in own}
    expected = {*names.values(), *([_POOL_P[family]] if family in _POOL_P else [])}
    missing, unexpected = sorted(expected - state.keys()), sorted(state.keys() - expected)
    if missing or unexpected:
        found = f"Missing: {shortened(missing)}. Unexpected: {shortened(unexpected)}"
        families = ", ".join({**FAMILIES, family: None})
        raise ValueError(f"{source} is no complete checkpoint of family {family!r} (of {families}). {found}")
    wrong, values = [], {}
    for ours, name in names.items():
        value = state[name]
        # SENet writes its convolutions over (u, v) as 3-D ones: (c, c, 1, 3, 3) → (c, c, 3, 3)
        values[ours] = value.squeeze(2) if value.ndim == 5 else value
        if own[ours].ndim == 0 and value.numel() == 1:  # an exponent that is published as a vector of one number
            values[ours] = value.reshape(())
        if values[ours].shape != own[ours].shape:
            wrong.append(f"{name} is {tuple(value.shape)}, wanted {tuple(own[ours].shape)}")
    if wrong:
        raise ValueError(f"{source} does not have the shapes of family {family!r}: {shortened(wrong)}")
    module.load_state_dict({**module.state_dict(), **values})


def shortened(found: list[str]) -> str:
    """The first of what was found, in one line."""
    more = f" and {len(found) - 10} more" if len(found) > 10 else ""
    return (", ".join(found[:10]) or "nothing") + more


def load_official(path_or_state: Path | str | Mapping[str, Any], family: str, **changes: Any) -> RetrievalNet:
    """A published ResNet checkpoint as a `RetrievalNet` in eval mode; depth and sizes are read off the weights.

    `family`: "senet" (Lee et al. 2023), "cvnet" (the global part; Lee et al. 2022) or "gem" (cirtorch; Radenovic et al.
    2019). `changes`: arguments of `RetrievalNet`. Raises `ValueError` naming every missing or unexpected name.
    """
    state, source = read_official(path_or_state, family)
    net = RetrievalNet(**{**official_config(state, family), **changes})
    load_renamed(net, state, family, source)
    return net.eval()


class OfficialHead(nn.Module):
    """What follows the last feature map of a published network: (B, C, H, W) → unit descriptors (B, D)."""

    def __init__(self, config: Mapping[str, Any]):
        super().__init__()
        kind = {"attention": attention.Head, "plain": plain.Head, "product": product.Head}[config["head"]]
        self.head = kind(3 * (config.get("channels", 2048),), **config["options"])
        self.normalize_pooled = config["normalize_pooled"]
        self.whitening = nn.Linear(2048, config["descriptor_dim"]) if config["descriptor_dim"] else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        pooled = self.head(x, x, nn.Identity())
        if self.normalize_pooled:
            pooled = F.normalize(pooled, dim=1)
        return F.normalize(self.whitening(pooled), dim=1)


def official_head(state: Path | str | Mapping[str, Any], family: str) -> OfficialHead:
    """The head of a published checkpoint in eval mode; `state` may lack the backbone. Raises as `load_official`.

    `family`: those of `load_official`, and "attention", for which `state` must be of the head alone.
    """
    state, source = read_official(state, family, (*FAMILIES, "attention"))
    config = attention_config(state) if family == "attention" else official_config(state, family)
    module = OfficialHead(config)
    backbone = _BACKBONE.get(family)
    of_head = {name: value for name, value in state.items() if backbone is None or not re.match(backbone, name)}
    load_renamed(module, of_head, family, source)
    return module.eval()


def convert(file: Path | str, family: str, out: Path | str, *, trained_on: str = "", superglobal: bool = False) -> Path:
    """Read a published checkpoint once and write it as ours (.safetensors and .json); gives the weights' file.

    `trained_on`: the training set as data/published.csv spells it. `superglobal`: with its pooling and preparation, for
    family "cvnet". Raises `ValueError` where a file would be overwritten that no conversion has made, else as
    `load_official`.
    """
    if checkpoint_files(out)[0].resolve() == Path(file).resolve():
        raise ValueError(f"the checkpoint would replace {file}, which it is made from; give another name (--out)")
    for target in checkpoint_files(out):
        if target.exists() and not _is_converted(target):
            raise ValueError(f"{target} is there and is no converted checkpoint; give another name (--out)")
    if superglobal and family != "cvnet":
        raise ValueError(f"SuperGlobal's pooling goes with the weights of family 'cvnet', not {family!r}")
    net = load_official(file, family, **(SUPERGLOBAL if superglobal else {}))
    preset = "superglobal" if superglobal else FAMILIES[family]
    extra = {"source": Path(file).name, "source_sha256": hash_file(file), "family": family, "trained_on": trained_on}
    return save_checkpoint(out, net, extra | {"preprocess": PRESETS[preset].to_dict()})


def _is_converted(file: Path) -> bool:
    """Whether this one file of a checkpoint is of a conversion; one that was killed has not written the other."""
    try:
        record = read_json(file) if file.suffix == ".json" else inside(file)
    except ValueError:
        return False
    return "source_sha256" in ((record or {}).get("extra") or ())
