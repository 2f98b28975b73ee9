"""Networks on disk: weights as safetensors with a JSON record beside them; and weights that others have published.

The record is stored inside the safetensors file too, so that weights and record of two runs cannot be taken for one.
Pickles are read with `weights_only=True`, and nothing in them runs; a head's .py file that a record names does run.
"""

import json
import re
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save

from ssr_lib.files import check_same, check_writable, one_line, read_json, write_atomic
from ssr_lib.images import PRESETS, Preprocess
from ssr_lib.network import RetrievalNet

FORMAT = "ssr-checkpoint-2"


def checkpoint_files(path: Path | str) -> tuple[Path, Path]:
    """The two files of a checkpoint: weights and record; `path` with or without its .safetensors or .json."""
    path = Path(path)
    if path.name in ("", ".."):
        raise ValueError(f"{path} is a folder; the name of a checkpoint is wanted")
    stem = path.with_suffix("") if path.suffix in (".safetensors", ".json") else path
    return stem.with_name(stem.name + ".safetensors"), stem.with_name(stem.name + ".json")


def check_destination(path: Path | str, made_by: str) -> None:
    """Raise `OSError` or `ValueError` where no checkpoint can be written or a file without `made_by` in it would go."""
    for target in checkpoint_files(path):
        check_writable(target)
        if target.exists() and made_by.encode() not in target.read_bytes():  # both hold the record as text
            raise ValueError(f"{target} is there and was made by something else; give another name (--out)")


def save_checkpoint(path: Path | str, net: RetrievalNet, extra: dict[str, Any] | None = None) -> Path:
    """Write `net` to path.safetensors and path.json (configuration and `extra`), each atomically; gives the first."""
    weights_file, record_file = checkpoint_files(path)
    state = {name: value.detach().cpu().contiguous() for name, value in net.state_dict().items()}
    record = {"format": FORMAT, "config": net.config, "extra": extra or {}, "weights": sha256(save(state)).hexdigest()}
    record = json.dumps(record, indent=1, sort_keys=True)
    write_atomic(weights_file, save(state, metadata={"record": record}))
    write_atomic(record_file, record + "\n")
    return weights_file


def read_record(path: Path | str) -> dict[str, Any]:
    """The record of a checkpoint: its "config" and "extra". Raises `ValueError` naming a damaged or foreign file."""
    weights_file, record_file = checkpoint_files(path)
    with one_line(f"{weights_file} holds no network of {FORMAT}, whole and undamaged; make or copy it again"):
        with safe_open(weights_file, framework="pt") as stored:
            record = json.loads(stored.metadata()["record"])
        if (record["format"], type(record["config"]), type(record["extra"])) != (FORMAT, dict, dict):
            raise ValueError(f"its record is {record!r:.80}")
    if read_json(record_file) != record:
        raise ValueError(f"{record_file} is missing or is not the record inside {weights_file.name}; copy both again")
    return record


def load_checkpoint(path: Path | str, net: RetrievalNet | None = None) -> RetrievalNet:
    """The net that was saved, in eval mode; its weights go into `net` if given. `ValueError` names a wrong file."""
    weights_file, record = checkpoint_files(path)[0], read_record(path)
    config, written = record["config"], record.get("weights")
    if net is not None:  # the weights of a head and of its control have the same names and shapes
        check_same({**config, "pretrained": 0, "seed": 0}, {**net.config, "pretrained": 0, "seed": 0}, weights_file)
    with one_line(f"{weights_file} does not hold the network that its record describes"):
        net, state = net or RetrievalNet(**{**config, "pretrained": "none"}), load_file(weights_file)
        net.load_state_dict(state)
        if written not in (None, sha256(save(state)).hexdigest()):  # None: as earlier versions wrote it
            raise ValueError("the file is damaged: its weights are not those that were written")
        net.config["pretrained"] = config["pretrained"]
    return net.eval()


def stored_preprocess(path: Path | str) -> Preprocess | None:
    """How a checkpoint wants its pictures: as its record says, or as its backbone was pretrained; None: not known."""
    record = read_record(path)
    if "preprocess" not in record["extra"]:
        return PRESETS["lite"] if str(record["config"].get("backbone")).startswith("tf_efficientnet_lite") else None
    with one_line(f"{path}: preprocess in its record"):
        return Preprocess(**record["extra"]["preprocess"])


class Ignored:
    """Stands for arrays and arguments that a published file has beside its weights, and forgets them."""

    def __init__(self, *_: object):
        pass

    __setstate__ = __init__


_IGNORED = ["argparse.Namespace", "numpy.ndarray", "numpy.dtype", "numpy.core.multiarray._reconstruct"]
_IGNORED += ["numpy.core.multiarray.scalar", "numpy._core.multiarray._reconstruct", "numpy._core.multiarray.scalar"]


def read_file(path: Path, source: str) -> object:
    """What a published file holds. Raises `ValueError`, in one line, for what is no file of weights."""
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with torch.serialization.safe_globals([(Ignored, name) for name in _IGNORED]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise
    except Exception as error:  # torch meets a file of another kind with KeyError, IndexError and more
        refused = re.search(r"(?:GLOBAL |<class ')([\w.]+)", str(error))
        if refused:
            how = "save the weights alone where that class is known: torch.save(model.state_dict(), 'weights.pth')"
            raise ValueError(f"{source} holds a {refused[1]}, which is not read; {how}") from error
        # what follows the first sentence advises to unpickle without thought
        reason = str(error).partition("\n")[0].partition(". ")[0] or type(error).__name__
        raise ValueError(f"{source} is damaged or no file of weights ({reason})") from error
