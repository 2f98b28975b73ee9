"""Training what a RetrievalNet does not freeze, on stored maps; a batch is a function of seed and step alone."""

import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, field
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt
from pydantic.dataclasses import dataclass
from torch import nn
from tqdm import trange

from ssr_lib.extract import Maps, pooled_features
from ssr_lib.files import STRICT, check_same, code_of, digest, load_part, locked, one_line, read_json, write_atomic
from ssr_lib.network import RetrievalNet, all_options, weights_digest
from ssr_lib.weights import load_checkpoint, save_checkpoint
from ssr_lib.whitening import Whitening, fit_lda


@dataclass(frozen=True, config=STRICT)
class TrainConfig:
    """The recipe of a head. `ValueError` names a field of no legal value."""

    steps: PositiveInt = 300
    batch_size: PositiveInt = 64
    optimizer: Literal["adamw", "sgd"] = "adamw"  # Loshchilov & Hutter, ICLR 2019: in few steps ahead of Nesterov's
    start: Literal["random", "fitted"] = "random"  # of whitening and class centres; fitted: LDA and class means
    shrinkage: NonNegativeFloat = 3.0  # of the LDA in fit_start; of 0.03 to 10 the best on validation landmarks
    lr_tail: NonNegativeFloat = 1e-3  # of pretrained layers; with start "fitted" of whitening and class centres too
    lr_new: NonNegativeFloat = 4e-3  # of what starts at random
    weight_decay: NonNegativeFloat = 1e-2  # PyTorch's default for AdamW; take 1e-4 with "sgd"
    warmup: Annotated[float, Field(ge=0, le=1)] = 0.1  # share of the steps; 5 of 50 epochs in CFCD's configuration
    clip: PositiveFloat = 10.0  # norm of the whole gradient; as DELF's public training program (tensorflow/models)
    loss: str = "arcface"  # a loss by its name, module path or .py file
    loss_options: Mapping[str, Any] = field(default_factory=dict)  # its keyword arguments, such as margin and scale
    seed: Annotated[int, Field(ge=0, lt=2**64)] = 0  # of the images' order, and of class centres at random


def learning_rate(step: int, steps: int, warmup: float) -> float:
    """Factor of the base rate at `step` (from 0) of `steps`: linear up over the share `warmup`, then half a cosine."""
    warm = round(warmup * steps)
    return (step + 1) / (warm + 1) if step < warm else 0.5 * (1.0 + math.cos(math.pi * (step - warm) / (steps - warm)))


@lru_cache(maxsize=4)
def epoch_order(count: int, seed: int, epoch: int) -> np.ndarray:
    """The images 0 … count − 1 in the order of an epoch (from 0), int64; a function of its arguments alone."""
    return np.random.default_rng([seed, epoch]).permutation(count)


def batch_ids(step: int, targets: np.ndarray, batch_size: int, seed: int, per_class: int | None = None) -> np.ndarray:
    """Ids (B,) int64 of batch `step` (from 0) of images with classes `targets` (N,) from 0 to K − 1, as epochs go.

    With `per_class` so many images, repeated where few, of batch_size // per_class random classes, but two at least.
    """
    if per_class is None:
        places = range(step * batch_size, (step + 1) * batch_size)
        return np.array([epoch_order(len(targets), seed, i // len(targets))[i % len(targets)] for i in places])
    rng, ids = np.random.default_rng([seed, 1, step]), []
    for target in rng.permutation(targets.max() + 1)[: max(2, batch_size // per_class)]:
        own = np.flatnonzero(targets == target)
        ids.append(rng.choice(own, per_class, replace=len(own) < per_class))
    return np.concatenate(ids)


def make_loss(net: RetrievalNet, classes: int, config) -> nn.Module:
    """The loss that a recipe names, for descriptors of `net`; `config` has `loss`, `loss_options` and `seed`."""
    kind = load_part(config.loss, "losses").Loss
    options = all_options(kind, config.loss_options, f"loss {config.loss!r}")
    with one_line(f"loss {config.loss!r}"):
        return kind(net.descriptor_dim, classes, seed=config.seed, **options)


def make_optimizer(net: RetrievalNet, loss: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """The optimizer: rate lr_tail for pretrained layers and what starts by LDA and class means, lr_new for the rest."""
    known, new = net.parameter_groups()["tail"], list(net.head.parameters())
    fitted = config.start == "fitted"
    (known if fitted else new).extend(net.whitening.parameters())
    (known if fitted and hasattr(loss, "start") else new).extend(loss.parameters())
    rates = (known, config.lr_tail), (new, config.lr_new)
    groups = [{"params": params, "base_lr": rate, "lr": rate} for params, rate in rates if params]
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, momentum=0.9, nesterov=True, weight_decay=config.weight_decay)
    return torch.optim.AdamW(groups, weight_decay=config.weight_decay, fused=True)


@lru_cache(maxsize=12)  # a head is trained with all seeds, ten in the longest profile, before the next
def _lda(features: bytes, width: int, targets: bytes, shrinkage: float) -> Whitening:
    """The LDA of float32 features (N, width): the same for all heads that start as the identity, to the last bit."""
    return fit_lda(np.frombuffer(features, np.float32).reshape(-1, width), np.frombuffer(targets, np.int64), shrinkage)


@torch.no_grad()
def fit_start(net: RetrievalNet, loss: nn.Module, maps: Maps, targets: np.ndarray, shrinkage: float) -> None:
    """Start `net`'s whitening from the LDA of the pooled features of `maps`, with classes `targets` (N,).

    Its rows are scaled to a root of mean square length 1, as those of the orthogonal map that it replaces. A `loss`
    starts from the descriptors that this gives. Raises `ValueError` without a whitening no wider than the features.
    """
    dims = net.descriptor_dim
    if net.config["descriptor_dim"] is None or dims > net.head.width:
        raise ValueError(f"start: fitted wants a whitening, to a descriptor_dim of {net.head.width} or less")
    features = pooled_features(net, maps)  # (N, C) float32
    lda = _lda(features.tobytes(), features.shape[1], targets.tobytes(), shrinkage)
    rows = lda.projection[:dims] * (np.arange(dims)[:, None] < lda.varied)  # 0 where the features do not vary
    weight = rows * np.sqrt(dims) / np.linalg.norm(rows)
    net.whitening.weight.copy_(torch.from_numpy(weight))
    net.whitening.bias.copy_(torch.from_numpy(-weight @ lda.mean))
    if hasattr(loss, "start"):
        descriptors = torch.from_numpy(Whitening(lda.mean, rows).apply(features.astype(np.float64)))
        loss.start(descriptors.to(net.whitening.weight), torch.from_numpy(targets).to(net.whitening.weight.device))


def train_head(
    net: RetrievalNet, maps: Maps, labels: Sequence, config: TrainConfig, *, directory: Path | str, progress=True
) -> list[dict[str, float]]:
    """Train a new `net`, in place and on its device, on stored maps and a label for each; returns the curve.

    The curve has a row for each step: step (from 1), loss, accuracy (share of the batch that the loss calls right), lr
    (of the tail), seconds. `directory` gets model.safetensors, model.json and training.json. A finished training is
    loaded from there, a killed one begins again, to the same bits on the same machine. Raises `ValueError` for another
    run there or labels that teach nothing, `FloatingPointError` for a loss that is not finite, `FolderBusyError`.
    """
    classes, targets = np.unique(np.asarray(labels), return_inverse=True)
    if len(labels) != len(maps) or len(classes) < 2:
        told = f"{len(labels)} labels of {len(classes)} classes for {len(maps)} maps"
        raise ValueError(f"{told}; a label for each map and at least two classes are wanted")
    directory, loss = Path(directory), make_loss(net, len(classes), config)
    made_by = {f"config.{key}": value for key, value in asdict(config).items()}
    made_by |= {f"net.{key}": value for key, value in net.config.items() if key != "pretrained"}
    made_by |= {"weights": weights_digest(net.backbone), "maps": maps.digest, "labels": digest(targets.tolist())}
    made_by |= {"head code": code_of(type(net.head), **net.config["options"]), "loss code": code_of(type(loss))}
    if (rows := finished_rows(directory, net, made_by)) is None:
        with locked(directory):
            rows = _train(net, loss, maps, targets, config, progress)
            finish(directory, net, made_by, len(classes), rows, preprocess=maps.preprocess)
    return rows


def finish(directory: Path, net: RetrievalNet, made_by: dict[str, Any], classes: int, rows, **extra: Any) -> None:
    """Store a trained net with its curve, training.json last: with it the run counts as finished."""
    save_checkpoint(directory / "model", net.eval(), {"training": made_by, **extra})
    write_atomic(directory / "training.json", json.dumps({"made_by": made_by, "classes": classes, "rows": rows}) + "\n")


def finished_rows(directory: Path, net: RetrievalNet, made_by: dict[str, Any]) -> list[dict[str, float]] | None:
    """Put the weights of a finished run into `net` and return its curve, None where there is none."""
    if (record := read_json(directory / "training.json")) is None:
        return None
    check_same(record.get("made_by", {}), made_by, directory)
    load_checkpoint(directory / "model", net)
    return record["rows"]


def _train(net, loss, maps, targets, config, progress: bool) -> list[dict[str, float]]:
    if getattr(net, "was_trained", False):  # what it starts from is not in the record
        raise ValueError("this network was trained before; make a new one")
    net.was_trained, device = True, next(net.parameters()).device
    labels = torch.from_numpy(targets).to(device)
    rows, started = [], time.perf_counter()
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(config.seed)
        loss.to(device)
        if hasattr(net.head, "fit"):  # what is not learned by training: codebooks, a PCA
            batches = (maps.batch(ids, device) for ids in maps.batches(config.batch_size))
            kept = ([x if x is None else x.clone() for x in batch] for batch in batches)  # the next overwrites a batch
            with torch.no_grad():
                net.eval().head.fit(net.inputs(*both) for both in kept)
        if config.start == "fitted":
            fit_start(net, loss, maps, targets, config.shrinkage)
        optimizer = make_optimizer(net, loss, config)
        trained = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        net.train()
        for step in trange(config.steps, unit="step", disable=not progress):
            ids = batch_ids(step, targets, config.batch_size, config.seed, loss.per_class)
            loss_value, accuracy = loss(net.from_maps(*maps.batch(ids, device)), labels[ids])
            rate = learning_rate(step, config.steps, config.warmup)
            for group in optimizer.param_groups:
                group["lr"] = rate * group["base_lr"]
            optimizer.zero_grad()
            loss_value.backward()
            norm = nn.utils.clip_grad_norm_(trained, config.clip)
            if not (loss_value.isfinite() and norm.isfinite()):
                raise FloatingPointError(f"loss or gradient not finite at step {step + 1}; lower lr_tail and lr_new")
            optimizer.step()
            row = {"step": step + 1, "loss": loss_value.item(), "accuracy": float(accuracy)}
            rows.append(row | {"lr": rate * config.lr_tail, "seconds": round(time.perf_counter() - started, 3)})
    return rows
