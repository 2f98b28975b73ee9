"""Published weights of SENet, CVNet, cirtorch's GeM networks and timm's ViTs, read once and written as checkpoints.

`official_head` also reads the head of the independent implementation of reading B, family "attention".
"""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from ssr_lib.backbones import plain_names, pretrained_preprocess
from ssr_lib.files import hash_file, load_part, one_line
from ssr_lib.heads import check_choice
from ssr_lib.images import PRESETS
from ssr_lib.network import RetrievalNet
from ssr_lib.weights import check_destination, read_file, save_checkpoint

FAMILIES = {"senet": "senet", "cvnet": "cvnet", "gem": "cirtorch"}  # and how their pictures are prepared
SUPERGLOBAL = {"options": {"p": 4.6, "regional": True, "eps": 1e-8}, "relup": 0.014, "normalize_pooled": True}
"""Changes that make `load_official(path, "cvnet", **SUPERGLOBAL)` SuperGlobal's extractor (Shao et al., ICCV 2023)."""

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


def official_config(state: dict[str, Tensor], family: str) -> dict[str, Any]:
    """What a published state says about the net, as arguments of `RetrievalNet`; a fixed exponent is taken out of it.

    "attention" is of a head alone, without a whitening. Raises `KeyError` with a name that is missing.
    """
    if family == "attention":
        c = len(state["initial_norm.weight"])
        window = 2 * max(1, count(r"tensor_encoder\.blocks\.(\d+)\.", state)) + 1
        options = {"mid_channels": c, "window": window, "start": "random"}
        inside = state["input_projection.0.weight"].shape[1] if "input_projection.0.weight" in state else c
        return {"head": family, "options": options, "normalize_pooled": False, "descriptor_dim": None, "inside": inside}
    linear = state.get("whiten.weight") if family == "gem" else state["head.fc.weight"]  # cirtorch's may be without
    depth = _DEPTHS.get(count(r"(?:s3|features\.6)\.(b?\d+)\.", state), "resnet50")
    config = {"backbone": depth, "pretrained": "none", "descriptor_dim": None if linear is None else len(linear)}
    config["normalize_pooled"] = family == "gem" and linear is not None  # cirtorch: L2 on both sides of its whitening
    if family in _POOL_P:
        return config | {"head": "plain", "options": {"p": state.pop(_POOL_P[family]).item()}}
    options = {"place": "last", "mid_channels": len(state["SSM.ch_reduction_encoder.weight"])}
    options["window"] = 2 * max(1, count(r"SSM\.SSE\.conv_in\.(\d+)\.", state)) + 1
    options["product_scale"] = 1.0  # the published arithmetic
    return config | {"head": "product", "options": options}


def count(pattern: str, state: Mapping[str, Tensor]) -> int:
    """How many different things the group of `pattern` finds at the start of the names of `state`."""
    return len({match[1] for match in map(re.compile(pattern).match, state) if match})


def official_name(ours: str, family: str) -> str:
    """What `family` calls our parameter."""
    name = re.sub(r"^backbone\.(mid|last)\.", "", ours)
    prefix = next(prefix for prefix in _NAMES[family] if name.startswith(prefix))
    name = _NAMES[family][prefix] + name.removeprefix(prefix)
    block = re.fullmatch(r"(s\d)\.(\d+)\.(.+)\.(\w+)", name)
    if block is None:
        return name
    return f"{block[1]}.b{int(block[2]) + 1}.{_PYCLS_LAYERS[block[3]]}.{block[4]}"  # pycls counts blocks from 1


def _load(state: Path | str | Mapping[str, Any], family: str, make: Callable[[dict], nn.Module], aside: str = _ASIDE):
    """The module that `make` builds from the configuration of a published state, with its weights, in eval mode."""
    check_choice("family", family, tuple(_NAMES))
    source = f"this state ({family})" if isinstance(state, Mapping) else f"{state} ({family})"
    if not isinstance(state, Mapping):
        state = read_file(Path(state), source)
    found = {}
    with one_line(f"{source} is no checkpoint of family {family!r}"):
        for wrapper in ("model", "model_state", "model_state_dict", "state_dict"):
            state = state[wrapper] if isinstance(state.get(wrapper), Mapping) else state
        for name, value in plain_names(state).items():
            # CVNet's global network in its own file; cirtorch's linear layer by another name
            name = re.sub(r"^fc\.", "whiten.", name.removeprefix("encoder_q."))
            if not re.match(aside, name):
                if not (isinstance(value, Tensor) and value.is_floating_point() and value.isfinite().all()):
                    raise ValueError(f"{name} is no tensor of finite floating-point numbers")
                found[name] = value
        module = make(official_config(found, family))
        for ours, value in module.state_dict().items():
            theirs = official_name(ours, family)
            if theirs in found:
                tensor = found.pop(theirs)  # SENet writes its convolutions over (u, v) as 3-D ones, (c, c, 1, 3, 3)
                found[ours] = tensor.reshape(value.shape) if tensor.squeeze().shape == value.squeeze().shape else tensor
        module.load_state_dict(found)  # names what is missing, unexpected or misshapen
    return module.eval()


def load_official(path_or_state: Path | str | Mapping[str, Any], family: str, **changes: Any) -> RetrievalNet:
    """A published ResNet checkpoint as a `RetrievalNet` in eval mode; depth and sizes are read off the weights.

    `family`: "senet" (Lee et al. 2023), "cvnet" (the global part; Lee et al. 2022) or "gem" (cirtorch; Radenović et al.
    2019). `changes`: arguments of `RetrievalNet`. Raises `ValueError` naming what is missing, unexpected or misshapen.
    """
    return _load(path_or_state, family, lambda config: RetrievalNet(**{**config, **changes}))


class OfficialHead(nn.Module):
    """What follows the last feature map of a published network: (B, C, H, W) → unit descriptors (B, D)."""

    def __init__(self, config: Mapping[str, Any]):
        super().__init__()
        self.head = load_part(config["head"], "heads").Head(3 * (config.get("inside", 2048),), **config["options"])
        self.normalize_pooled, dim = config["normalize_pooled"], config["descriptor_dim"]
        self.whitening = nn.Identity() if dim is None else nn.Linear(2048, dim)

    def forward(self, x: Tensor) -> Tensor:
        pooled = self.head(x, x, nn.Identity())
        return F.normalize(self.whitening(F.normalize(pooled, dim=1) if self.normalize_pooled else pooled), dim=1)


def official_head(state: Path | str | Mapping[str, Any], family: str) -> OfficialHead:
    """The head of a published checkpoint in eval mode; `state` may lack the backbone. Raises as `load_official`.

    `family`: those of `load_official`, and "attention", for which `state` must be of the head alone.
    """
    return _load(state, family, OfficialHead, aside=f"{_ASIDE}|{_OF_BACKBONE}")


def convert(file: Path | str, family: str, out: Path | str, *, trained_on: str = "", superglobal: bool = False) -> Path:
    """Read a published checkpoint once and write it as ours (.safetensors and .json); gives the weights' file.

    `family`: one of `FAMILIES`, or timm's name of a ViT whose weights, named as in timm, are in `file` (.safetensors);
    it gets the head "class_token" and the preparation of its data configuration. `trained_on`: the training set as
    data/published.csv spells it. `superglobal`: with its pooling and preparation, for family "cvnet". Raises
    `ValueError` where a file would be overwritten that no conversion has made.
    """
    check_destination(out, "source_sha256")
    if superglobal and family != "cvnet":
        raise ValueError(f"SuperGlobal's pooling goes with the weights of family 'cvnet', not {family!r}")
    if family in FAMILIES:
        net = load_official(file, family, **(SUPERGLOBAL if superglobal else {}))
        preprocess = PRESETS["superglobal" if superglobal else FAMILIES[family]]
    else:
        net = RetrievalNet(family, "class_token", protocol="frozen", pretrained=file)
        net.config["pretrained"] = "none"  # as of the other families: the weights come from the checkpoint
        preprocess = pretrained_preprocess(family)
    extra = {"source": Path(file).name, "source_sha256": hash_file(file), "family": family, "trained_on": trained_on}
    return save_checkpoint(out, net, extra | {"preprocess": preprocess.to_dict()})
