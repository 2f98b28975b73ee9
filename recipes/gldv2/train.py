"""Training a whole RetrievalNet on pictures, in one process or many: GLDv2-clean for the real benchmarks.

The recipe is that of the public programs of DELG's descendants: feymanpriv/DELG and DOLG (Yang et al., ICCV 2021),
bassyess/CFCD (Zhu et al., ICCV 2023); each value names its file. What a step sees depends on the seed and the step
alone, not on the number of processes, so a killed run continues, on as many processes to the same losses.
"""

from __future__ import annotations

import errno
import hashlib
import math
import os
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from recipes.gldv2.augment import random_view
from ssr_lib.files import FolderBusyError, folder_lock
from ssr_lib.images import ImageError, Preprocess, load_image
from ssr_lib.losses import MarginLoss
from ssr_lib.network import RetrievalNet, weights_digest
from ssr_lib.resume import load_state, save_state
from ssr_lib.train import epoch_order, finish, finished_rows, learning_rate

PRECISIONS = {"float32": None, "bfloat16": torch.bfloat16}  # not float16: GeM's cubes of small activations vanish in it


@dataclass(frozen=True)
class ImageTrainConfig:
    """The recipe. Raises `ValueError` for a value that cannot be."""

    epochs: float = 50  # MAX_EPOCH, CFCD configs/resnet50_cfcd_s1_8gpu.yaml (DOLG: 100)
    batch_size: int = 128  # BATCH_SIZE, ibid.: pictures of one step, over all processes
    accumulate: int = 1  # a step's batch goes through the net in this many parts
    image_size: int = 512  # IM_SIZE, ibid.: px, square crops (data/augment.py)
    precision: str = "float32"  # of the net's passes: "float32" | "bfloat16"; the loss is always float32
    lr: float = 0.005  # BASE_LR at 128 pictures, ibid. (DOLG: 0.01)
    momentum: float = 0.9  # MOMENTUM with NESTEROV, ibid.
    weight_decay: float = 1e-4  # WEIGHT_DECAY, ibid.
    warmup: float = 0.1  # WARMUP_EPOCHS 5 of 50, ibid.: share of the steps; then LR_POLICY cos
    clip: float = 10.0  # clip_val of tensorflow/models research/delf/delf/python/training/train.py
    loss: str = "arcface"  # DELG (Cao et al., ECCV 2020) and DOLG; "cosface" is the other
    margin: float = 0.15  # MARGIN and SCALE, DOLG configs/resnet101_delg_8gpu.yaml
    scale: float = 30.0
    train_trunk: bool = True  # the whole backbone learns; its batch norms keep their pretrained statistics
    seed: int = 0  # of the order, the views and the class centres

    def __post_init__(self):
        if self.precision not in PRECISIONS:
            raise ValueError(f"precision is {self.precision!r}; one of {', '.join(PRECISIONS)} is wanted")
        if self.epochs <= 0 or self.batch_size < 1 or self.accumulate < 1:
            raise ValueError(
                f"epochs {self.epochs}, batch_size {self.batch_size}, accumulate {self.accumulate}: "
                "all must be positive"
            )

    def steps(self, count: int) -> int:
        """Optimizer steps for `count` pictures."""
        return max(1, math.ceil(self.epochs * count / self.batch_size))


class Place(NamedTuple):
    """This process among those that train together, and its device."""

    rank: int
    world: int
    device: torch.device


@contextmanager
def process_group(device: str) -> Iterator[Place]:
    """Join the processes that torchrun started (nccl on cuda, else gloo); alone where there are none."""
    if "WORLD_SIZE" not in os.environ:
        yield Place(0, 1, torch.device(device))
        return
    chosen = torch.device(device)
    if chosen.type == "cuda":
        chosen = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(chosen)
    dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
    try:
        yield Place(dist.get_rank(), dist.get_world_size(), chosen)
    finally:
        dist.destroy_process_group()


NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP)  # what shared disks say that keep none


@contextmanager
def one_writer(directory: Path, place: Place) -> Iterator[None]:
    """Process 0 holds the lock of `directory`; where it gets none, every process raises what process 0 met."""
    with ExitStack() as held:
        met = [None]
        if place.rank == 0:
            try:
                held.enter_context(folder_lock(directory))
            except (FolderBusyError, OSError) as error:
                if getattr(error, "errno", None) not in NO_LOCKS:
                    met = [error]
                else:
                    warnings.warn(f"{directory}: this disk keeps no locks; start one training at a time", stacklevel=2)
        if place.world > 1:
            dist.broadcast_object_list(met)  # the others would wait for process 0 in vain
        if met[0] is not None:
            raise met[0]
        yield


class TrainingViews(Dataset):
    """Item `position` of the endless stream of epochs: a random view (3, S, S) float32 and its class.

    A function of (seed, position) alone: neither of the process nor of the worker that makes it.
    """

    def __init__(
        self, root: Path, files: Sequence[str], classes: np.ndarray, preprocess: Preprocess, size: int, seed: int
    ):
        self.root, self.files, self.classes = root, files, classes
        self.preprocess, self.size, self.seed = preprocess, size, seed

    def __getitem__(self, position: int) -> tuple[Tensor, int]:
        epoch, place = divmod(position, len(self.files))
        i = int(epoch_order(len(self.files), self.seed, epoch)[place])
        image = load_image(self.root / self.files[i], exif_orientation=self.preprocess.exif_orientation)
        rng = np.random.default_rng([self.seed, 1, position])
        return random_view(image, self.size, self.preprocess, rng), int(self.classes[i])


class Positions:
    """The stream positions of each part of a batch that this process trains on, from step `first` on."""

    def __init__(self, place: Place, config: ImageTrainConfig, first: int, steps: int):
        self.part, rest = divmod(config.batch_size, place.world * config.accumulate)
        if rest or not self.part:
            raise ValueError(
                f"batch_size {config.batch_size} does not divide into {place.world} processes x "
                f"{config.accumulate} parts; choose a multiple of {place.world * config.accumulate}"
            )
        self.place, self.accumulate, self.first, self.last = place, config.accumulate, first, steps

    def __iter__(self) -> Iterator[range]:
        for i in range(self.first * self.accumulate, self.last * self.accumulate):
            start = (i * self.place.world + self.place.rank) * self.part
            yield range(start, start + self.part)

    def __len__(self) -> int:
        return (self.last - self.first) * self.accumulate


class Learner(nn.Module):
    """Net and loss as one module, so that gradients of both are averaged over processes together."""

    def __init__(self, net: RetrievalNet, loss: MarginLoss, precision: str):
        super().__init__()
        self.net, self.loss, self.dtype = net, loss, PRECISIONS[precision]

    def forward(self, images: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
        with torch.autocast(images.device.type, self.dtype, enabled=self.dtype is not None):
            descriptors = self.net(images)  # (B, 3, S, S) → (B, D)
        return self.loss(descriptors, classes)


def train_images(
    net: RetrievalNet,
    root: Path | str,
    files: Sequence[str],
    labels: np.ndarray,
    preprocess: Preprocess,
    config: ImageTrainConfig,
    directory: Path | str,
    *,
    device: str = "cpu",
    workers: int = 4,
    checkpoint_every: int = 1000,
    log_every: int = 50,
    trained_on: str = "",
    progress: bool = True,
) -> list[dict[str, float]]:
    """Train all of `net` on random views of pictures; returns the learning curve, a row for each `log_every` steps.

    Rows: step, and means since the last row of loss and accuracy, lr, seconds. `labels` (N,): landmark ids.
    `preprocess` gives colour order, mean and deviation, and is stored with the model for extraction, as is the name of
    the training set, `trained_on`. `directory`, on a disk that all processes see, gets state.safetensors every
    `checkpoint_every` steps and at the end model.safetensors, model.json and training.json; resuming and refusing as in
    `train.train_head`, and before the first step with `OSError` where it cannot be written. Under torchrun each process
    calls this with the same arguments; process 0 writes, and holds the folder's lock. With one or two processes a
    resumed run has the same losses to the last bit on CPU, and on CUDA where its kernels are deterministic
    (`torch.use_deterministic_algorithms`); with more, sums over processes may be taken in another order.
    """
    if len(labels) != len(files):
        raise ValueError(f"{len(labels)} labels for {len(files)} files; one for each is wanted")
    if checkpoint_every % log_every:
        raise ValueError(f"checkpoint_every {checkpoint_every} is not a multiple of log_every {log_every}")
    directory = Path(directory)
    landmarks, classes = np.unique(np.asarray(labels), return_inverse=True)
    if len(landmarks) < 2:
        found = f"one class ({landmarks[0]})" if len(landmarks) else "no picture"
        raise ValueError(f"{found} teaches nothing; two or more classes are wanted")
    made_by = {
        "config": asdict(config),
        "net": {key: value for key, value in net.config.items() if key != "pretrained"},
        "backbone_weights": weights_digest(net.backbone),
        "preprocess": preprocess.to_dict(),
        "files": hashlib.sha256(
            "\n".join(f"{f} {c}" for f, c in zip(files, classes, strict=True)).encode()
        ).hexdigest(),
    }
    if (rows := finished_rows(directory, net, made_by)) is not None:
        return rows
    views = TrainingViews(Path(root), files, classes, preprocess, config.image_size, config.seed)
    with process_group(device) as place, one_writer(directory, place):
        if (rows := finished_rows(directory, net, made_by)) is not None:
            return rows  # by whoever held the lock
        run = Run(net, len(landmarks), config, made_by, directory, place)
        try:
            rows = run.train(views, config.steps(len(files)), workers, checkpoint_every, log_every, progress)
        except ImageError as error:  # a worker's comes with the whole of its traceback, the message last
            raise ImageError(str(error).strip().rpartition("\n")[2].rpartition("ImageError: ")[2]) from None
        if place.rank == 0:
            finish(
                directory, net, made_by, len(landmarks), rows, preprocess=preprocess.to_dict(), trained_on=trained_on
            )
        if place.world > 1:
            dist.barrier()  # nobody looks for the model before it is there
    return rows


class Run:
    """One process's share of a training run: modules, optimizer, and the state on disk."""

    def __init__(
        self, net: RetrievalNet, classes: int, config: ImageTrainConfig, made_by, directory: Path, place: Place
    ):
        self.config, self.made_by, self.place = config, made_by, place
        self.state_file = directory / "state.safetensors"
        net.backbone.trunk.requires_grad_(config.train_trunk)
        loss = MarginLoss(net.descriptor_dim, classes, config.loss, config.margin, config.scale, config.seed)
        self.learner = Learner(net, loss, config.precision).to(place.device, memory_format=torch.channels_last)
        self.parameters = [parameter for parameter in self.learner.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.SGD(
            self.parameters, lr=config.lr, momentum=config.momentum, nesterov=True, weight_decay=config.weight_decay
        )

    @cached_property
    def model(self) -> nn.Module:
        """The learner, with its gradients averaged over processes where there are several."""
        if self.place.world == 1:
            return self.learner
        device_ids = [self.place.device] if self.place.device.type == "cuda" else None
        return DistributedDataParallel(self.learner, device_ids=device_ids)

    def train(
        self, views: Dataset, steps: int, workers: int, checkpoint_every: int, log_every: int, progress: bool
    ) -> list[dict[str, float]]:
        device, config = self.place.device, self.config
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            rows = self._resume()
            first = rows[-1]["step"] if rows else 0
            batches = Positions(self.place, config, first, steps)
            parts = iter(
                DataLoader(views, batch_sampler=batches, num_workers=workers, pin_memory=device.type == "cuda")
            )
            self.learner.train()
            started = time.perf_counter() - (rows[-1]["seconds"] if rows else 0.0)
            totals = torch.zeros(2, device=device)
            bar = tqdm(total=steps, initial=first, unit="step", disable=not (progress and self.place.rank == 0))
            for step in range(first, steps):
                torch.manual_seed((config.seed * (steps + 1) + step) * self.place.world + self.place.rank)
                rate = config.lr * learning_rate(step, steps, config.warmup)
                totals += self._step(parts, rate)
                bar.update()
                if (step + 1) % log_every and step + 1 < steps:
                    continue
                since = step + 1 - (rows[-1]["step"] if rows else 0)
                loss, accuracy = (self._mean_over_processes(totals) / since).tolist()
                if not math.isfinite(loss):
                    raise FloatingPointError(f"{self.state_file.parent}: loss {loss} by step {step + 1}; lower lr")
                seconds = round(time.perf_counter() - started, 3)
                rows.append({"step": step + 1, "loss": loss, "accuracy": accuracy, "lr": rate, "seconds": seconds})
                totals.zero_()
                bar.set_postfix(loss=f"{loss:.3f}", accuracy=f"{accuracy:.2f}")
                if (step + 1) % checkpoint_every == 0 and step + 1 < steps and self.place.rank == 0:
                    record = {"made_by": self.made_by, "rows": rows}
                    save_state(self.state_file, {"learner": self.learner}, self.optimizer, record)
            bar.close()
        return rows

    def _resume(self) -> list[dict[str, float]]:
        if not self.state_file.is_file():
            return []
        return load_state(self.state_file, {"learner": self.learner}, self.optimizer, self.made_by)["rows"]

    def _step(self, parts: Iterator[tuple[Tensor, Tensor]], rate: float) -> Tensor:
        """One optimizer step at learning rate `rate`; this process's mean loss and accuracy, (2,)."""
        config, device = self.config, self.place.device
        self.optimizer.param_groups[0]["lr"] = rate
        self.optimizer.zero_grad()
        totals = torch.zeros(2, device=device)
        for part in range(config.accumulate):
            images, classes = next(parts)
            images = images.to(device, non_blocking=True, memory_format=torch.channels_last)
            # gradients are averaged over processes once a step, with its last part
            alone = self.place.world > 1 and part + 1 < config.accumulate
            with self.model.no_sync() if alone else nullcontext():
                loss, accuracy = self.model(images, classes.to(device, non_blocking=True))
                (loss / config.accumulate).backward()
            totals += torch.stack([loss.detach(), accuracy]) / config.accumulate
        nn.utils.clip_grad_norm_(self.parameters, config.clip)
        self.optimizer.step()
        return totals

    def _mean_over_processes(self, values: Tensor) -> Tensor:
        if self.place.world > 1:
            dist.all_reduce(values)
        return values / self.place.world
