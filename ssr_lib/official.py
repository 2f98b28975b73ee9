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
from ssr_lib.files import hash_file, load_part
from ssr_lib.heads import check_choice
from ssr_lib.images import PRESETS
from ssr_lib.network import RetrievalNet
from ssr_lib.weights import check_tensors, checkpoint_files, read_file, save_checkpoint

FAMILIES = {"senet": "senet", "cvnet": "cvnet", "gem": "cirtorch"}  # and how their pictures are prepared
SUPERGLOBAL = {"options": {"p": 4.6, "regional": True, "eps": 1e-8}, "relup": 0.014, "normalize_pooled": True}
"""Changes that make `load_official(path, "cvnet", **SUPERGLOBAL)` SuperGlobal's extractor (Shao et al., ICCV 2023)."""

_WRAPPERS = ("model", "model_state", "model_state_dict", "state_dict")
_DEPTHS = {6: "resnet50", 23: "resnet101", 36: "resnet152"}  # by the number of blocks in the third stage
_POOL_P = {"cvnet": "head.pool.p", "gem": "pool.p"}
_OF_BACKBONE = r"(stem|s[1-4]|features)\."  # pycls, cirtorch
_ASIDE = r"conv2ds\.|cv_learner\.|.*num_batches_tracked"  # CVNet's file holds its local re-ranker, another model

# How our names begin, "backbone.mid." and "backbone.last." aside, and what stands there in published ones.
_PYCLS = {"conv1": "stem.conv", "bn1": "stem.bn", "layer": "s", "whitening": "head.fc"}
_PYCLS_LAYERS = {"conv1": "f.a", "bn1": "f.a_bn", "conv2": "f.b", "bn2": "f.b_bn", "conv3": "f.c", "bn3": "f.c_bn"}
_PYCLS_LAYERS |= {"downsample.0": "proj", "downsample.1": "bn"}
_SENET = {"head.reduce": "SSM.ch_reduction_encoder", "head.encoder": "SSM.SSE.conv_in"}
_SENET |= {"head.expand": "SSM.SSE.conv1x1_out", "head.feed_forward": "SSM.FFN"}
_GEM = {"conv1": "features.0", "bn1": "features.1", "layer1": "features.4", "layer2": "features.5"}
_GEM |= {"layer3": "features.6", "layer4": "features.7", "whitening": "whiten"}
_ATTENTION = {"head.reduce": "input_projection", "head.score": "attention", "head.encoder": "tensor_encoder.blocks"}
_ATTENTION |= {"head.expand": "tensor_encoder.restore", "head.norm": "initial_norm"}
_ATTENTION |= {"head.feed_forward": "feature_fusion", "head.pooling.p": "gem_p"}
_NAMES = {"senet": _PYCLS | _SENET, "cvnet": _PYCLS, "gem": _GEM, "attention": _ATTENTION}


def read_official(path_or_state: Path | str | Mapping[str, Any], family: str) -> tuple[dict[str, Tensor], str]:
    """The tensors of a published checkpoint under their published names, and what to call it in an error."""
    state, source = path_or_state, f"this state ({family})"
    if not isinstance(state, Mapping):
        source = f"{state} ({family})"
        state = read_file(Path(state), source)
    for wrapper in _WRAPPERS:
        if isinstance(state, Mapping) and isinstance(state.get(wrapper), Mapping):
            state = state[wrapper]
    check_tensors(state, source)
    found = {}
    for name, value in plain_names(state).items():
        if not re.match(_ASIDE, name):
            # CVNet's global network in its own file; cirtorch's linear layer by another name
            found[re.sub(r"^fc\.", "whiten.", name.removeprefix("encoder_q."))] = value
    return found, source


def official_config(state: Mapping[str, Tensor], family: str) -> dict[str, Any]:
    """What the shapes of a published state say about the net, as arguments of `RetrievalNet`."""
    linear = f"{_NAMES[family]['whitening']}.weight"
    whitened = family != "gem" or linear in state  # a cirtorch net may be without
    config: dict[str, Any] = {
        "backbone": _DEPTHS.get(count(r"(?:s3|features\.6)\.(b?\d+)\.", state), "resnet50"),
        "head": "plain",
        "options": {},
        "descriptor_dim": size(state, linear, 0, 2048) if whitened else None,
        "normalize_pooled": family == "gem" and whitened,  # cirtorch: L2 on both sides of its whitening
        "pretrained": "none",
    }
    if family == "senet":
        config["head"] = "product"
        config["options"] = {
            "place": "last",
            "mid_channels": size(state, "SSM.ch_reduction_encoder.weight", 0, 256),
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
    c = size(state, "initial_norm.weight", 0, 512)
    window = 2 * max(1, count(r"tensor_encoder\.blocks\.(\d+)\.", state)) + 1
    options = {"mid_channels": c, "window": window, "start": "random"}
    inside = size(state, "input_projection.0.weight", 1, c)  # absent where X has c channels
    config = {"head": "attention", "options": options, "channels": inside}
    return config | {"normalize_pooled": False, "descriptor_dim": None}


def count(pattern: str, state: Mapping[str, Tensor]) -> int:
    """How many different things the group of `pattern` finds at the start of the names of `state`."""
    return len({match[1] for match in map(re.compile(pattern).match, state) if match})


def size(state: Mapping[str, Tensor], name: str, axis: int, usual: int) -> int:
    """Length of a tensor along `axis`; the usual one where there is none, which `load_renamed` will say."""
    return state[name].shape[axis] if name in state and state[name].ndim > axis else usual


def official_name(ours: str, family: str) -> str:
    """What `family` calls our parameter."""
    name = re.sub(r"^backbone\.(mid|last)\.", "", ours)
    prefix = next(prefix for prefix in _NAMES[family] if name.startswith(prefix))
    name = _NAMES[family][prefix] + name.removeprefix(prefix)
    block = re.fullmatch(r"(s\d)\.(\d+)\.(.+)\.(\w+)", name)
    if block is None:
        return name
    return f"{block[1]}.b{int(block[2]) + 1}.{_PYCLS_LAYERS[block[3]]}.{block[4]}"  # pycls counts blocks from 1


def load_renamed(module: nn.Module, state: Mapping[str, Tensor], family: str, source: str) -> None:
    """Load a published state into our module; what is missing, unexpected or misshapen raises `ValueError`."""
    own = {name: value for name, value in module.state_dict().items() if "num_batches" not in name}
    names = {official_name(ours, family): ours for ours in own}
    expected = {*names, _POOL_P[family]} if family in _POOL_P else {*names}
    misshapen = []
    for name in names.keys() & state.keys():
        found, wanted = state[name].shape, own[names[name]].shape
        # sides of 1 do not count: SENet writes its convolutions over (u, v) as 3-D ones, (c, c, 1, 3, 3)
        if [n for n in found if n != 1] != [n for n in wanted if n != 1]:
            misshapen.append(f"{name} is {tuple(found)}, wanted {tuple(wanted)}")
    faults = {"missing": expected - state.keys(), "unexpected": state.keys() - expected, "misshapen": misshapen}
    if any(faults.values()):
        told = [f"{len(found)} {what}: {', '.join(sorted(found)[:10])}" for what, found in faults.items() if found]
        families = ", ".join(_NAMES)
        raise ValueError(f"{source} is no checkpoint of family {family!r} (of {families}): {'; '.join(told)}")
    values = {ours: state[name].reshape(own[ours].shape) for name, ours in names.items()}
    module.load_state_dict(values, strict=False)


def load_official(path_or_state: Path | str | Mapping[str, Any], family: str, **changes: Any) -> RetrievalNet:
    """A published ResNet checkpoint as a `RetrievalNet` in eval mode; depth and sizes are read off the weights.

    `family`: "senet" (Lee et al. 2023), "cvnet" (the global part; Lee et al. 2022) or "gem" (cirtorch; Radenovic et al.
    2019). `changes`: arguments of `RetrievalNet`. Raises `ValueError` naming every missing or unexpected name.
    """
    check_choice("family", family, tuple(FAMILIES))
    state, source = read_official(path_or_state, family)
    net = RetrievalNet(**{**official_config(state, family), **changes})
    load_renamed(net, state, family, source)
    return net.eval()


class OfficialHead(nn.Module):
    """What follows the last feature map of a published network: (B, C, H, W) → unit descriptors (B, D)."""

    def __init__(self, config: Mapping[str, Any]):
        super().__init__()
        kind = load_part(config["head"], "heads").Head
        self.head = kind(3 * (config.get("channels", 2048),), **config["options"])
        self.normalize_pooled = config["normalize_pooled"]
        dim = config["descriptor_dim"]
        self.whitening = nn.Identity() if dim is None else nn.Linear(2048, dim)

    def forward(self, x: Tensor) -> Tensor:
        pooled = self.head(x, x, nn.Identity())
        if self.normalize_pooled:
            pooled = F.normalize(pooled, dim=1)
        return F.normalize(self.whitening(pooled), dim=1)


def official_head(state: Path | str | Mapping[str, Any], family: str) -> OfficialHead:
    """The head of a published checkpoint in eval mode; `state` may lack the backbone. Raises as `load_official`.

    `family`: those of `load_official`, and "attention", for which `state` must be of the head alone.
    """
    check_choice("family", family, tuple(_NAMES))
    state, source = read_official(state, family)
    module = OfficialHead(attention_config(state) if family == "attention" else official_config(state, family))
    of_head = {name: value for name, value in state.items() if not re.match(_OF_BACKBONE, name)}
    load_renamed(module, of_head, family, source)
    return module.eval()


def convert(file: Path | str, family: str, out: Path | str, *, trained_on: str = "", superglobal: bool = False) -> Path:
    """Read a published checkpoint once and write it as ours (.safetensors and .json); gives the weights' file.

    `trained_on`: the training set as data/published.csv spells it. `superglobal`: with its pooling and preparation, for
    family "cvnet". Raises `ValueError` where a file would be overwritten that no conversion has made, else as
    `load_official`.
    """
    for target in checkpoint_files(out):  # both hold the record as text; a conversion that was killed wrote one
        if target.exists() and b"source_sha256" not in target.read_bytes():
            raise ValueError(f"{target} is there and is no converted checkpoint; give another name (--out)")
    if superglobal and family != "cvnet":
        raise ValueError(f"SuperGlobal's pooling goes with the weights of family 'cvnet', not {family!r}")
    net = load_official(file, family, **(SUPERGLOBAL if superglobal else {}))
    preset = "superglobal" if superglobal else FAMILIES[family]
    extra = {"source": Path(file).name, "source_sha256": hash_file(file), "family": family, "trained_on": trained_on}
    return save_checkpoint(out, net, extra | {"preprocess": PRESETS[preset].to_dict()})
