"""Training the head of a RetrievalNet on cached maps of its frozen trunk, with ArcFace or CosFace.

Every variant sees the same images in the same order: a batch is a function of the seed and the step alone.
"""

from __future__ import annotations

import json
import math
import platform
import time
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from tqdm import tqdm

from ssr_lib.files import digest, folder_lock, read_json, write_atomic
from ssr_lib.losses import MARGINS, MarginLoss
from ssr_lib.maps import MapReader, maps_digest, maps_provenance, pooled_features
from ssr_lib.network import RetrievalNet, weights_digest
from ssr_lib.resume import check_same, load_state, save_state
from ssr_lib.weights import load_checkpoint, save_checkpoint
from ssr_lib.whitening import class_means, fit_lda

OPTIMIZERS = ("sgd", "adamw")
STARTS = ("random", "fitted")


@dataclass(frozen=True)
class TrainConfig:
    """The recipe of a head: batches, optimizer, schedule, loss. Raises `ValueError` for a value that cannot be.

    "sgd" is what the field trains whole networks with for 50 to 100 epochs (feymanpriv/DOLG, bassyess/CFCD: Nesterov
    0.9, weight decay 1e-4, rate 0.005 to 0.01). A head has a few hundred steps, in which AdamW gets further: after 60
    steps on photographs of 81 products the loss was 0.5 against 1.9 with "sgd" at 0.01.
    """

    steps: int = 300
    batch_size: int = 64
    optimizer: str = "adamw"  # "adamw" (Loshchilov & Hutter, ICLR 2019) | "sgd" with Nesterov momentum
    start: str = "random"  # of the whitening and the class centres: "random" | "fitted" (fit_start)
    shrinkage: float = 3.0  # of a fitted start's LDA; of 0.03 to 10 the best after training, on validation landmarks
    lr_tail: float = 1e-3  # of pretrained and of fitted layers
    lr_new: float = 4e-3  # of what starts at random
    momentum: float = 0.9  # "sgd" only
    weight_decay: float = 1e-2  # PyTorch's default for AdamW; take 1e-4 with "sgd"
    warmup: float = 0.1  # share of the steps; 5 of 50 epochs in CFCD's configuration
    clip: float = 10.0  # norm of the whole gradient; as DELF's public training program (tensorflow/models)
    loss: str = "arcface"  # "arcface" | "cosface"
    margin: float = 0.15  # radians for arcface; margin and scale of DOLG's configuration (Yang et al., ICCV 2021)
    scale: float = 30.0
    seed: int = 0  # of the order of the images, and of class centres that start at random

    def __post_init__(self):
        choices = (self.optimizer, OPTIMIZERS, "optimizer"), (self.loss, MARGINS, "loss"), (self.start, STARTS, "start")
        for value, legal, what in choices:
            if value not in legal:
                raise ValueError(f"{what} is {value!r}; one of {', '.join(legal)} is wanted")
        if self.shrinkage < 0:
            raise ValueError(f"shrinkage is {self.shrinkage}; 0 or more is wanted")
        if self.steps < 1 or self.batch_size < 2:
            raise ValueError(f"steps {self.steps}, batch_size {self.batch_size}: at least 1 and 2 are wanted")
        if not (0 <= self.warmup < 1 and self.clip > 0 and self.lr_tail >= 0 and self.lr_new >= 0):
            raise ValueError(
                f"warmup {self.warmup}, clip {self.clip}, lr_tail {self.lr_tail}, lr_new {self.lr_new}: "
                "0 <= warmup < 1, clip > 0 and learning rates >= 0 are wanted"
            )


def learning_rate(step: int, steps: int, warmup: float) -> float:
    """Factor of the base rate at `step` (from 0) of `steps`: linear up over the share `warmup`, then half a cosine."""
    warm = round(warmup * steps)
    if step < warm:
        return (step + 1) / (warm + 1)
    return 0.5 * (1.0 + math.cos(math.pi * (step - warm) / (steps - warm)))


@lru_cache(maxsize=4)
def epoch_order(count: int, seed: int, epoch: int) -> np.ndarray:
    """The images 0 … count − 1 in the order of an epoch (from 0), int64; a function of its arguments alone."""
    order = np.random.default_rng([seed, epoch]).permutation(count)
    order.flags.writeable = False  # it is shared
    return order


def batch_ids(step: int, count: int, batch_size: int, seed: int) -> np.ndarray:
    """Ids (B,) int64 of batch `step` (from 0): one epoch's order after the other, cut into batches."""
    positions = np.arange(step * batch_size, (step + 1) * batch_size)
    return np.array([epoch_order(count, seed, epoch)[i] for epoch, i in zip(*divmod(positions, count), strict=True)])


def make_optimizer(net: RetrievalNet, loss: MarginLoss, config: TrainConfig) -> torch.optim.Optimizer:
    """SGD with Nesterov momentum or AdamW: rate lr_tail for pretrained and fitted layers, lr_new for what starts at random."""
    known, new = net.parameter_groups()["tail"], [*net.parameter_groups()["new"], *loss.parameters()]
    if config.start == "fitted":
        fitted = {*map(id, net.whitening.parameters()), *map(id, loss.parameters())}
        known, new = [*known, *(p for p in new if id(p) in fitted)], [p for p in new if id(p) not in fitted]
    rates = (known, config.lr_tail), (new, config.lr_new)
    groups = [{"params": params, "lr": rate, "base_lr": rate} for params, rate in rates if params]
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, momentum=config.momentum, nesterov=True, weight_decay=config.weight_decay)
    return torch.optim.AdamW(groups, weight_decay=config.weight_decay, fused=True)


@torch.no_grad()
def fit_start(
    net: RetrievalNet, loss: MarginLoss | None, maps: np.ndarray, targets: np.ndarray, shrinkage: float
) -> None:
    """Put `net`'s whitening and the class centres where the network, as it is, has them: no step is spent on finding them.

    The whitening becomes the LDA (with `shrinkage`, see `fit_lda`) of the pooled features of `maps` (N, C, H, W) with their
    classes `targets` (N,), scaled to rows of root mean square length 1, as the orthogonal map that it replaces; a centre
    becomes the mean descriptor of its class (imprinted weights: Qi et al., CVPR 2018); without `loss` there are none, and
    `net` is what it would be before its first step. A module that starts as the identity leaves the features alone, so all
    variants then start alike; another is fitted as it is in eval mode, whose batch norms have seen nothing yet. Raises `ValueError` where no class has two views. Source: docs/method.md, section 2.5.
    """
    features = pooled_features(net, maps).astype(np.float64)
    lda, dims = fit_lda(features, targets, shrinkage), net.descriptor_dim
    weight = lda.projection[:dims] * np.sqrt(dims) / np.linalg.norm(lda.projection[:dims])
    descriptors = (features - lda.mean) @ weight.T
    descriptors /= np.linalg.norm(descriptors, axis=1, keepdims=True)
    net.whitening.weight.copy_(torch.from_numpy(weight))
    net.whitening.bias.copy_(torch.from_numpy(-weight @ lda.mean))
    if loss is not None:
        loss.centres.copy_(F.normalize(torch.from_numpy(class_means(descriptors, targets))))


def describe_training(net: RetrievalNet, maps: np.ndarray, targets: np.ndarray, config: TrainConfig) -> dict[str, Any]:
    """All that the trained head depends on, JSON-able; pretrained weights are known by their values, not their path."""
    recipe = asdict(config)
    if config.start == "random":  # so records from before there was a choice stay those of the same training
        del recipe["start"], recipe["shrinkage"]
    return {
        "config": recipe,
        "net": {key: value for key, value in net.config.items() if key != "pretrained"},
        "backbone_weights": weights_digest(net.backbone),
        "maps": maps_digest(maps),
        "labels": digest(targets.tolist()),
    }


def train_head(
    net: RetrievalNet,
    maps: np.ndarray,
    labels: Sequence[Any],
    config: TrainConfig,
    *,
    directory: str | Path,
    checkpoint_every: int = 50,
    progress: bool = True,
) -> list[dict[str, float]]:
    """Train `net`, in place and on its device, on cached maps (N, C, H, W) and a label for each; returns the curve.

    The curve has a row for each step: step (from 1), loss, accuracy (share of the batch nearest to its own centre), lr
    (of the tail), seconds (since the start). `directory` gets state.safetensors every `checkpoint_every` steps, from
    which a killed run continues to the same bits on the same machine, and at the end model.safetensors, model.json and
    training.json. A finished directory is loaded instead of trained. Raises `ValueError` where it holds a run that
    was made otherwise, or where a fitted start finds no whitening, or one wider than the features;
    `FloatingPointError` where the loss is no longer finite, `FolderBusyError` where another process is training there.
    """
    if len(labels) != len(maps):
        raise ValueError(f"{len(labels)} labels for {len(maps)} maps; one for each is wanted")
    classes, targets = np.unique(np.asarray(labels), return_inverse=True)
    if len(classes) < 2:
        raise ValueError(f"one class ({classes[0]!r}) teaches nothing; two or more are wanted")
    if config.start == "fitted" and (net.whitening is None or net.descriptor_dim > net.whitening.in_features):
        raise ValueError(
            f"start 'fitted' wants a whitening to fit, from {net.backbone.out_channels} channels to as many or fewer; "
            f"descriptor_dim is {net.config['descriptor_dim']}"
        )
    directory = Path(directory)
    made_by = describe_training(net, maps, targets, config)
    if (finished := finished_rows(directory, net, made_by)) is not None:
        return finished

    with folder_lock(directory):
        if (finished := finished_rows(directory, net, made_by)) is not None:
            return finished  # by whoever held the lock
        return _train(net, maps, targets, len(classes), config, directory, made_by, checkpoint_every, progress)


def _train(net, maps, targets, classes: int, config: TrainConfig, directory: Path, made_by, checkpoint_every, progress):
    device = next(net.parameters()).device
    net.to(memory_format=torch.channels_last)
    loss_module = MarginLoss(net.descriptor_dim, classes, config.loss, config.margin, config.scale, config.seed)
    modules = {"net": net, "loss": loss_module.to(device)}
    optimizer = make_optimizer(net, loss_module, config)
    reader = MapReader(maps, config.batch_size, device)
    labels_on_device = torch.from_numpy(targets).to(device)
    state_file, rows = directory / "state.safetensors", []
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(config.seed)
        if state_file.is_file():
            rows = load_state(state_file, modules, optimizer, made_by)["rows"]
        net.train()
        started = time.perf_counter() - (rows[-1]["seconds"] if rows else 0.0)
        if config.start == "fitted" and not rows:
            fit_start(net, loss_module, maps, targets, config.shrinkage)
        bar = tqdm(range(config.steps), initial=len(rows), unit="step", desc=directory.name, disable=not progress)
        for step in range(len(rows), config.steps):
            ids = batch_ids(step, len(maps), config.batch_size, config.seed)
            rate = learning_rate(step, config.steps, config.warmup)
            loss, accuracy = _train_step(modules, optimizer, reader(ids), labels_on_device[ids], rate, config.clip)
            if not math.isfinite(loss):
                raise FloatingPointError(f"{directory}: loss {loss} at step {step + 1}; lower lr_tail and lr_new")
            seconds = round(time.perf_counter() - started, 3)
            rows.append(
                {"step": step + 1, "loss": loss, "accuracy": accuracy, "lr": rate * config.lr_tail, "seconds": seconds}
            )
            bar.update()
            bar.set_postfix(loss=f"{loss:.3f}", accuracy=f"{accuracy:.2f}")
            if len(rows) % checkpoint_every == 0 and len(rows) < config.steps:
                save_state(state_file, modules, optimizer, {"made_by": made_by, "rows": rows})
        bar.close()
    provenance = maps_provenance(maps)
    extra = {"preprocess": provenance["preprocess"]} if provenance else {}
    finish(directory, net, made_by, classes, rows, **extra)
    return rows


def _train_step(modules, optimizer, maps, labels, rate: float, clip: float) -> tuple[float, float]:
    for group in optimizer.param_groups:
        group["lr"] = rate * group["base_lr"]
    loss, accuracy = modules["loss"](modules["net"].head(maps), labels)
    optimizer.zero_grad()
    loss.backward()
    trained = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    nn.utils.clip_grad_norm_(trained, clip)
    optimizer.step()
    return loss.item(), accuracy.item()


def finish(directory: Path, net: RetrievalNet, made_by: dict[str, Any], classes: int, rows, **extra: Any) -> None:
    """Store a trained net with its curve, training.json last: with it the run counts as finished."""
    net.eval()
    save_checkpoint(directory / "model", net, {"training": made_by, **extra})
    versions = {"torch": torch.__version__, "python": platform.python_version(), "machine": platform.machine()}
    record = {"made_by": made_by, "classes": classes, "versions": versions, "rows": rows}
    write_atomic(directory / "training.json", json.dumps(record) + "\n")
    (directory / "state.safetensors").unlink(missing_ok=True)


def finished_rows(directory: Path, net: RetrievalNet, made_by: dict[str, Any]) -> list[dict[str, float]] | None:
    """Put the weights of a finished run into `net` and return its curve; None where no run is finished.

    Raises `ValueError` where the run was made otherwise.
    """
    if not (directory / "training.json").is_file():
        return None
    record = read_json(directory / "training.json")
    if record is None or not {"made_by", "rows"} <= set(record):
        warnings.warn(f"{directory / 'training.json'} is damaged; the network is trained again", stacklevel=2)
        return None
    check_same(record["made_by"], made_by, directory)
    net.load_state_dict(load_checkpoint(directory / "model").state_dict())
    net.eval()
    return record["rows"]
