"""Weights on disk: safetensors with a JSON record beside them, and converters for published weights.

The record (format, configuration, whatever the caller adds) is stored inside the safetensors file too, so that weights
and record of two different runs cannot be taken for one. Published checkpoints are unpickled with `weights_only=True`.
"""

from __future__ import annotations

import json
import re
from collections import OrderedDict
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor, nn

from ssr_lib.datasets.transfer import hash_file
from ssr_lib.datasets.unpickle import STAND_INS
from ssr_lib.files import write_atomic
from ssr_lib.images import PRESETS, Preprocess
from ssr_lib.network import RetrievalNet
from ssr_lib.pooling import Pooling
from ssr_lib.self_similarity import SelfSimilarity

FORMAT = "ssr-checkpoint-1"


def checkpoint_files(path: Path | str) -> tuple[Path, Path]:
    """The two files of a checkpoint: weights and record; `path` with or without its .safetensors or .json."""
    path = Path(path)
    stem = path.with_suffix("") if path.suffix in (".safetensors", ".json") else path
    return stem.with_name(stem.name + ".safetensors"), stem.with_name(stem.name + ".json")


def save_checkpoint(path: Path | str, net: RetrievalNet, extra: dict[str, Any] | None = None) -> Path:
    """Write `net` to path.safetensors and path.json (configuration and `extra`), each atomically; gives the first."""
    weights_file, record_file = checkpoint_files(path)
    record = json.dumps({"format": FORMAT, "config": net.config, "extra": extra or {}}, indent=1, sort_keys=True)
    state = {name: value.detach().cpu().contiguous() for name, value in net.state_dict().items()}
    write_atomic(weights_file, save(state, metadata={"record": record}))
    write_atomic(record_file, record + "\n")
    return weights_file


def read_record(path: Path | str) -> dict[str, Any]:
    """The record of a checkpoint: its "config" and "extra". Raises `ValueError` naming a damaged or foreign file."""
    return read_checkpoint(path)[0]


def read_checkpoint(path: Path | str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    weights_file, record_file = checkpoint_files(path)
    for file in (weights_file, record_file):
        if not file.is_file():
            raise FileNotFoundError(
                f"checkpoint file {file} does not exist; a checkpoint is two files, .safetensors and .json"
            )
    try:
        with safe_open(weights_file, framework="pt") as stored:
            inside = (stored.metadata() or {}).get("record", "{}")
            state = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118  (not a mapping)
    except (SafetensorError, OSError) as error:
        raise ValueError(
            f"{weights_file} is damaged or cut short ({error}); train, convert or copy it again"
        ) from error
    try:
        record = json.loads(record_file.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(
            f"{record_file} is no JSON ({error}); copy it again together with {weights_file.name}"
        ) from error
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise ValueError(f"{record_file}: 'format' should be {FORMAT!r}; this is not a checkpoint of this library")
    if not isinstance(record.get("config"), dict) or not isinstance(record.get("extra"), dict):
        raise ValueError(f"{record_file}: 'config' and 'extra' should be objects; copy it again")
    with suppress(json.JSONDecodeError):  # what is no JSON equals no record
        inside = json.loads(inside)
    if record != inside:
        raise ValueError(
            f"{record_file} does not match the record inside {weights_file.name}: they come from different runs or one "
            "was edited; copy both files again from the same place"
        )
    return record, state


def load_checkpoint(path: Path | str) -> RetrievalNet:
    """The net that `save_checkpoint` wrote, in eval mode. Raises `ValueError` naming the file that is wrong."""
    record, state = read_checkpoint(path)
    try:  # the weights come from the file
        net = RetrievalNet.from_config(record["config"], pretrained="none")
    except (ValueError, TypeError) as error:
        raise ValueError(f"{checkpoint_files(path)[1]}: {error}") from error
    net.config["pretrained"] = record["config"]["pretrained"]
    try:
        net.load_state_dict(state, strict=True)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:400]
        raise ValueError(
            f"{checkpoint_files(path)[0]} does not hold the weights its record describes: {reason}"
        ) from error
    return net.eval()


def stored_preprocess(path: Path | str) -> Preprocess | None:
    """How a checkpoint wants its pictures: as its record says, as the family it was converted from, or as its backbone."""
    record = read_record(path)
    try:
        if "preprocess" in record["extra"]:
            return Preprocess.from_dict(record["extra"]["preprocess"])
        if "family" in record["extra"]:
            return PRESETS[FAMILIES[record["extra"]["family"]]]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{checkpoint_files(path)[1]}: its preparation of pictures is unknown ({error})") from error
    return PRESETS["lite"] if record["config"]["backbone"].startswith("tf_efficientnet_lite") else None


# Published weights → how their pictures are prepared.
FAMILIES = {"senet": "senet", "cvnet": "cvnet", "gem": "cirtorch"}
SUPERGLOBAL = {"pooling": "gem+", "p": 4.6, "regional": True, "relup": 0.014, "normalize_pooled": True}
"""Changes that make `load_official(path, "cvnet", **SUPERGLOBAL)` SuperGlobal's extractor (Shao et al., ICCV 2023)."""

_DEPTHS = {6: "resnet50", 23: "resnet101", 36: "resnet152"}  # by the number of blocks in the third stage
_POOL_P = {"cvnet": "head.pool.p", "gem": "pool.p"}
_TO_PYCLS = (
    (r"layer(\d)\.(\d+)\.", lambda m: f"s{m[1]}.b{int(m[2]) + 1}."),
    (r"^(conv|bn)1\.", r"stem.\1."),
    (r"downsample\.0", "proj"),
    (r"downsample\.1", "bn"),
    (r"\.conv([123])\.", lambda m: f".f.{'abc'[int(m[1]) - 1]}."),
    (r"\.bn([123])\.", lambda m: f".f.{'abc'[int(m[1]) - 1]}_bn."),
)
_TO_TORCHVISION = (
    (r"^conv1\.", "features.0."),
    (r"^bn1\.", "features.1."),
    (r"^layer(\d)\.", lambda m: f"features.{int(m[1]) + 3}."),
)
_TO_SENET = (
    (r"^embedding\.reduce", "SSM.ch_reduction_encoder"),
    (r"^embedding\.encoder", "SSM.SSE.conv_in"),
    (r"^embedding\.expand", "SSM.SSE.conv1x1_out"),
    (r"^embedding\.feed_forward", "SSM.FFN"),
)
_BACKBONE = {"senet": r"(stem|s[1-4])\.", "cvnet": r"(stem|s[1-4])\.", "gem": r"features\."}
# cirtorch keeps a learned whitening as NumPy arrays beside the weights; they are read by stand-ins, and not looked at
_NUMPY_GLOBALS = [(stand_in, name) for name, stand_in in STAND_INS.items() if not name.startswith("builtins.")]


def read_official(path_or_state: Path | str | Mapping[str, Any], family: str) -> tuple[dict[str, Tensor], str]:
    """The tensors of a published checkpoint under their published names, and what to call it in an error."""
    if family not in FAMILIES:
        raise ValueError(f"family is {family!r}; one of {', '.join(FAMILIES)} is wanted")
    state, source = path_or_state, f"this state ({family})"
    if not isinstance(state, Mapping):
        source = f"{state} ({family})"
        try:
            if str(state).endswith(".safetensors"):
                state = load_file(state)
            else:
                with torch.serialization.safe_globals(_NUMPY_GLOBALS):
                    state = torch.load(state, map_location="cpu", weights_only=True)
        except FileNotFoundError:
            raise
        except Exception as error:  # torch meets a file of another kind with KeyError, IndexError and more
            # what follows the first sentence advises to unpickle without thought
            reason = str(error).partition("\n")[0].partition(". ")[0] or type(error).__name__
            raise ValueError(f"{source} is damaged, no checkpoint, or holds more than tensors ({reason})") from error
    for wrapper in ("state_dict", "model_state", "state_dict"):  # either may hold the other
        state = state.get(wrapper, state) if isinstance(state, Mapping) else state
    state = check_tensors(state, source)
    state = {name.removeprefix("module."): value for name, value in state.items()}
    if family == "cvnet" and any(name.startswith("encoder_q.") for name in state):
        # the published file holds CVNet's local re-ranking network too, which is another model
        other = ("conv2ds.", "cv_learner.")
        state = {name.removeprefix("encoder_q."): v for name, v in state.items() if not name.startswith(other)}
    return {name: value for name, value in state.items() if not name.endswith("num_batches_tracked")}, source


def check_tensors(state: object, source: str) -> Mapping[str, Tensor]:
    """The state as it is, if it maps names to finite tensors; else `ValueError` naming the entry that does not fit."""
    if not isinstance(state, Mapping):
        raise ValueError(f"{source} holds a {type(state).__name__}; tensors by name are wanted")
    for name, value in state.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise ValueError(f"{source}: entry {name!r} is a {type(value).__name__}; tensors by name are wanted")
        plain = value.layout is torch.strided and not value.is_meta
        if not plain or not (value.is_floating_point() or name.endswith("num_batches_tracked")):
            kind = f"{value.dtype}, {value.layout}{', meta' if value.is_meta else ''}".replace("torch.", "")
            raise ValueError(f"{source}: {name} is {kind}; dense floating-point weights are wanted")
        if not bool(torch.isfinite(value).all()):
            raise ValueError(f"{source}: {name} holds NaN or infinity; the file is damaged: download it again")
    return state


def official_config(state: Mapping[str, Tensor], family: str) -> dict[str, Any]:
    """What the shapes of a published state say about the net, as arguments of `RetrievalNet`."""
    count = lambda pattern: len({m[1] for m in map(re.compile(pattern).match, state) if m})
    blocks = count(r"(?:s3|features\.6)\.(b?\d+)\.")
    linear = official_linear(state, family)
    config: dict[str, Any] = {
        "backbone": _DEPTHS[min((depth for depth in _DEPTHS if depth >= blocks), default=36)],
        "variant": "self-similarity" if family == "senet" else "plain",
        "place": "last",
        "feed_forward": family == "senet",
        "descriptor_dim": len(state[f"{linear}.weight"]) if f"{linear}.weight" in state else 2048 if linear else None,
        "normalize_pooled": family == "gem" and linear is not None,  # cirtorch: L2 on both sides of its whitening
        "pretrained": "none",
    }
    if family == "senet":
        reduce = state.get("SSM.ch_reduction_encoder.weight")
        config["mid_channels"] = 256 if reduce is None else len(reduce)
        config["window"] = 2 * max(1, count(r"SSM\.SSE\.conv_in\.(\d+)\.")) + 1
        config["product_scale"] = 1.0  # the published arithmetic
    elif _POOL_P[family] in state:
        if state[_POOL_P[family]].numel() != 1:
            raise ValueError(
                f"{_POOL_P[family]} has {state[_POOL_P[family]].numel()} exponents; one for all channels is wanted"
            )
        config["p"] = state[_POOL_P[family]].item()
        if not config["p"] > 0:
            raise ValueError(f"{_POOL_P[family]} is {config['p']}; a positive exponent is wanted")
    return config


def official_linear(state: Mapping[str, Tensor], family: str) -> str | None:
    """Name of the last linear layer; a cirtorch net may be without."""
    if family != "gem":
        return "head.fc"
    return next((name for name in ("whiten", "fc") if any(key.startswith(f"{name}.") for key in state)), None)


def official_name(ours: str, state: Mapping[str, Tensor], family: str) -> str:
    """What `family` calls our parameter."""
    name = re.sub(r"^backbone\.(trunk|tail)\.", "", ours)
    if name == ours:  # not of the backbone
        rules = (*_TO_SENET, (r"^whitening", official_linear(state, family) or ""))
    else:
        rules = _TO_TORCHVISION if family == "gem" else _TO_PYCLS
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name


def load_renamed(module: nn.Module, state: Mapping[str, Tensor], family: str, source: str) -> None:
    """Load a published state into our module; names that are missing or unexpected raise `ValueError` with a list."""
    names = {ours: official_name(ours, state, family) for ours in module.state_dict() if "num_batches" not in ours}
    expected = {*names.values(), *([_POOL_P[family]] if family in _POOL_P else [])}
    missing, unexpected = sorted(expected - state.keys()), sorted(state.keys() - expected)
    if missing or unexpected:
        shorten = lambda found: ", ".join(found[:20]) + f" and {len(found) - 20} more" * (len(found) > 20)
        raise ValueError(
            f"{source} is no complete checkpoint of family {family!r} (families: {', '.join(FAMILIES)}). "
            f"Missing: {shorten(missing) or 'nothing'}. Unexpected: {shorten(unexpected) or 'nothing'}"
        )
    values = {ours: state[theirs] for ours, theirs in names.items()}
    # SENet writes its convolutions over (u, v) as 3-D ones: (c, c, 1, 3, 3) → (c, c, 3, 3)
    values = {ours: value.squeeze(2) if value.ndim == 5 else value for ours, value in values.items()}
    own = module.state_dict()
    wrong = [
        f"{names[ours]} is {tuple(value.shape)}, wanted {tuple(own[ours].shape)}"
        for ours, value in values.items()
        if value.shape != own[ours].shape
    ]
    if wrong:
        more = f" and {len(wrong) - 5} more" * (len(wrong) > 5)
        raise ValueError(f"{source} does not have the shapes of family {family!r}: {'; '.join(wrong[:5])}{more}")
    module.load_state_dict({**own, **values}, strict=True)


def load_official(path_or_state: Path | str | Mapping[str, Any], family: str, **changes: Any) -> RetrievalNet:
    """A published ResNet checkpoint as a `RetrievalNet` in eval mode.

    `family`: "senet" (Lee et al. 2023), "cvnet" (the global part; Lee et al. 2022) or "gem" (cirtorch; Radenovic et al.
    2019); depth and sizes are read off the weights. `changes`: arguments of `RetrievalNet`, for example `SUPERGLOBAL`.
    Raises `ValueError` naming the file and every missing or unexpected name.
    """
    state, source = read_official(path_or_state, family)
    net = RetrievalNet(**{**official_config(state, family), **changes})
    load_renamed(net, state, family, source)
    return net.eval()


def official_head(state: Path | str | Mapping[str, Any], family: str) -> nn.Sequential:
    """What follows the last feature map: a module (B, 2048, H, W) → unit descriptors (B, D), in eval mode.

    `state` needs only the head's tensors; those of the backbone may be there. Its parts are `embedding` (senet),
    `pooling`, `whitening`. Raises as `load_official`.
    """
    state, source = read_official(state, family)
    config = official_config(state, family)
    state = {name: value for name, value in state.items() if not re.match(_BACKBONE[family], name)}
    head = OrderedDict()
    if family == "senet":
        sizes = config["mid_channels"], config["window"]
        head["embedding"] = SelfSimilarity(2048, *sizes, product_scale=config["product_scale"])
    head["pooling"] = Pooling("gem", config.get("p", 3.0))
    if config["normalize_pooled"]:
        head["normalize_pooled"] = L2()
    if config["descriptor_dim"]:
        head["whitening"] = nn.Linear(2048, config["descriptor_dim"])
    head["normalize"] = L2()
    module = nn.Sequential(head)
    load_renamed(module, state, family, source)
    return module.eval()


class L2(nn.Module):
    """Rows of unit length."""

    def forward(self, x: Tensor) -> Tensor:
        return F.normalize(x, dim=1)


def convert(path: Path | str, family: str, out: Path | str, *, trained_on: str = "", superglobal: bool = False) -> Path:
    """Read a published checkpoint once and write it as ours (.safetensors and .json); gives the weights' file.

    `trained_on`: the training set, as data/published.csv spells it, for the tables that compare. `superglobal`: with
    SuperGlobal's pooling and preparation (family "cvnet"). Raises `ValueError` where that would overwrite the published
    file or another that no conversion, finished or killed, has made, and as `load_official`.
    """
    if checkpoint_files(out)[0].resolve() == Path(path).resolve():
        raise ValueError(f"the checkpoint would replace {path}, which it is made from; give another name (--out)")
    for file in checkpoint_files(out):
        if file.exists() and not _is_converted(file):
            raise ValueError(f"{file} is there and is no converted checkpoint; give another name (--out)")
    if superglobal and family != "cvnet":
        raise ValueError(f"SuperGlobal's pooling goes with the weights of family 'cvnet', not {family!r}")
    net = load_official(path, family, **(SUPERGLOBAL if superglobal else {}))
    digest = hash_file(Path(path))
    extra = {"source": Path(path).name, "source_sha256": digest, "family": family}
    if trained_on:
        extra["trained_on"] = trained_on
    if superglobal:
        extra["preprocess"] = PRESETS["superglobal"].to_dict()
    return save_checkpoint(out, net, extra)


def _is_converted(file: Path) -> bool:
    """Whether this one file of a checkpoint is of a conversion; one that was killed has not written the other."""
    try:
        if file.suffix == ".json":
            return "source_sha256" in json.loads(file.read_text(encoding="utf-8"))["extra"]
        with safe_open(file, framework="pt") as stored:
            return "source_sha256" in json.loads(stored.metadata()["record"])["extra"]
    except (SafetensorError, OSError, ValueError, KeyError, TypeError):
        return False
