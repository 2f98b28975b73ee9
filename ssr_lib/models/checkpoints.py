"""Weights on disk: safetensors with a JSON record beside them.

The record (format, configuration, whatever the caller adds) is stored inside the safetensors file too, so that weights
and record of two different runs cannot be taken for one.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ssr_lib.data.benchmark import write_atomic
from ssr_lib.models.network import RetrievalNet

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
    if record != json.loads(inside):
        raise ValueError(
            f"{record_file} does not match the record inside {weights_file.name}: they come from different runs or one "
            "was edited; copy both files again from the same place"
        )
    return record, state


def load_checkpoint(path: Path | str) -> RetrievalNet:
    """The net that `save_checkpoint` wrote, in eval mode. Raises `ValueError` naming the file that is wrong."""
    record, state = read_checkpoint(path)
    net = RetrievalNet.from_config(
        record["config"], pretrained="none"
    )  # weights come from the file, whatever they began as
    net.config["pretrained"] = record["config"]["pretrained"]
    try:
        net.load_state_dict(state, strict=True)
    except RuntimeError as error:
        raise ValueError(
            f"{checkpoint_files(path)[0]} does not hold the weights its record describes: {error}"
        ) from error
    return net.eval()
