"""A training run's state on disk, so that a killed run continues to the same bits.

One safetensors file holds weights, buffers, optimizer state and random state, and the learning curve in its JSON
header: one file, moved into place, is never half of two states. Nothing is pickled.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ssr_lib.files import remove_leftovers, replacing

FORMAT = "ssr-training-1"


def check_same(found: Mapping[str, Any], wanted: Mapping[str, Any], where: Path | str) -> None:
    """Raise `ValueError` naming the entries in which two nested records differ; `where` holds the found one."""
    found, wanted = dict(_flatten(found)), dict(_flatten(wanted))
    differing = [key for key in {**found, **wanted} if found.get(key) != wanted.get(key)]
    if differing:
        listed = "; ".join(f"{key} is {found.get(key)!r} there, {wanted.get(key)!r} here" for key in differing[:5])
        raise ValueError(f"{where} holds another training run: {listed}; choose another directory or delete it")


def _flatten(record: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in record.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", list(value) if isinstance(value, tuple) else value


def save_state(
    path: Path, modules: Mapping[str, nn.Module], optimizer: torch.optim.Optimizer, record: Mapping[str, Any]
) -> None:
    """Write everything the next step depends on, and `record` (JSON-able), to one file, atomically."""
    tensors = {f"{name}/{key}": value for name, module in modules.items() for key, value in module.state_dict().items()}
    for i, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer/{i}/{key}": value for key, value in state.items() if value is not None}
    tensors["random/cpu"] = torch.get_rng_state()
    device = next(next(iter(modules.values())).parameters()).device
    if device.type == "cuda":
        tensors["random/cuda"] = torch.cuda.get_rng_state(device)
    stored = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(path)
    try:
        with replacing(path) as temporary:  # straight to disk: with 81,313 class centres a copy would be gigabytes
            save_file(stored, temporary, metadata={"format": FORMAT, "record": json.dumps(record)})
    except SafetensorError as error:  # of the disk: no OSError, and without a name
        raise OSError(
            f"{path} could not be written ({error}); make room, and the same command goes on from the last state"
        ) from error


def load_state(
    path: Path, modules: Mapping[str, nn.Module], optimizer: torch.optim.Optimizer, made_by: Mapping[str, Any]
) -> dict[str, Any]:
    """Put back what `save_state` wrote; returns its record.

    Raises `ValueError` where the file is damaged or its record's "made_by" is not `made_by`.
    """
    remove_leftovers(path)  # here too: a run killed at its last state does not write another
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  (not a mapping)
        record = json.loads(metadata["record"])
    except (SafetensorError, OSError, KeyError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} is damaged ({error}); delete it, and training starts again") from error
    check_same(record["made_by"], made_by, path)
    for name, module in modules.items():
        module.load_state_dict(_below(tensors, f"{name}/"))
    _load_optimizer(optimizer, _below(tensors, "optimizer/"))
    torch.set_rng_state(tensors["random/cpu"])
    if "random/cuda" in tensors:
        torch.cuda.set_rng_state(tensors["random/cuda"], next(next(iter(modules.values())).parameters()).device)
    return record


def _below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}


def _load_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """State of each parameter, in the memory order of the parameter: another order could round differently."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        index, name = key.split("/", 1)
        parameter = parameters[int(index)]
        if value.shape == parameter.shape:
            value = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
        state.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
