"""Training a whole network on Google Landmarks v2 clean, in one process or, under torchrun, in many.

What a step sees depends on the seed and the step alone, not on the number of processes, so a killed run continues, on
as many processes to the same losses.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import SGD, Optimizer
from torch.utils.data import DataLoader
from tqdm import trange

from recipes.gldv2.recipe import Recipe, read_recipe
from recipes.gldv2.views import TrainingViews, positions
from ssr_lib.decode import ImageError
from ssr_lib.extract import pick_device
from ssr_lib.files import FolderBusyError, check_same, code_of, digest, locked, one_line, replacing
from ssr_lib.network import RetrievalNet, weights_digest
from ssr_lib.train import finish, finished_rows, learning_rate, make_loss

# what makes no other network: how fast it goes, and where things lie (what lies there is known by its digest)
ASIDE = {"clean_csv", "images", "leave_out", "pretrained", "out", "workers", "device", "checkpoint_every", "log_every"}


def rank_and_world() -> tuple[int, int]:
    """The number of this process among those that torchrun started together, and how many they are."""
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


@contextmanager
def process_group(name: str) -> Iterator[torch.device]:
    """Join the processes that torchrun started (nccl on cuda, else gloo), where it did; this one's device."""
    device = torch.device(pick_device(name))
    if "WORLD_SIZE" not in os.environ:
        yield device
        return
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield device
    finally:
        dist.destroy_process_group()


class Learner(nn.Module):
    """The network and the loss of a recipe as one module, so that processes average the gradients of both together.

    Raises `ValueError` for a network or a loss that cannot be, or cannot be trained on shuffled pictures.
    """

    def __init__(self, recipe: Recipe, classes: int):
        super().__init__()
        self.dtype = getattr(torch, recipe.precision)
        options = recipe.model_dump(include={"descriptor_dim", "pretrained", "seed"})
        with one_line(f"network with head {recipe.head!r}"):
            self.net = RetrievalNet(recipe.backbone, recipe.head, recipe.head_options, **options)
        self.net.backbone.mid.requires_grad_(recipe.train_backbone)
        self.loss = make_loss(self.net, classes, recipe)
        if self.loss.per_class is not None:
            raise ValueError(f"loss {recipe.loss!r} wants views of one class side by side; here they are shuffled")
        if hasattr(self.net.head, "fit"):
            raise ValueError(f"head {recipe.head!r} is fitted to stored maps before its training; here are none")

    def forward(self, images: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
        with torch.autocast(images.device.type, self.dtype, enabled=self.dtype != torch.float32):
            descriptors = self.net(images)  # (B, 3, S, S) → (B, D)
        return self.loss(descriptors.float(), classes)


def train(recipe: Recipe) -> list[dict[str, float]]:
    """Train the network of a recipe; returns the learning curve, a row for each `log_every` steps.

    Rows: step, means since the last row of loss and accuracy, lr, seconds. Under torchrun each process calls this with
    the same recipe, and process 0 writes. A finished training is found again. With one or two processes a resumed one
    has the same losses to the last bit on CPU, and on CUDA where its kernels are deterministic; with more, sums over
    processes may be taken in another order. Raises `ValueError` for a recipe that cannot be or another training in its
    folder, `FolderBusyError` where another process trains there, `FloatingPointError` for a loss that is not finite.
    """
    rank, world = rank_and_world()
    if recipe.batch_size % (world * recipe.accumulate):
        wanted = f"a multiple of {world} processes x {recipe.accumulate} parts is wanted"
        raise ValueError(f"batch_size is {recipe.batch_size}; {wanted}")
    views = TrainingViews(recipe)
    learner = Learner(recipe, views.class_count)
    made_by = {
        **recipe.model_dump(exclude=ASIDE),
        "pictures": digest([views.files, views.classes.tolist()]),
        "backbone_weights": weights_digest(learner.net.backbone),
        "code": [code_of(type(learner.net.head), **learner.net.config["options"]), code_of(type(learner.loss))],
    }
    out = Path(recipe.out)
    with locked(out) if rank == 0 else nullcontext(), process_group(recipe.device) as device:
        finished = finished_rows(out, learner.net, made_by)
        if finished is not None:
            (out / "state.pt").unlink(missing_ok=True)  # of a run that was killed at its very end
            return finished
        rows = run_steps(learner.to(device, memory_format=torch.channels_last), views, recipe, made_by)
        if rank == 0:
            extra = {"preprocess": views.preprocess.to_dict(), "trained_on": views.name}
            finish(out, learner.net, made_by, views.class_count, rows, **extra)
            (out / "state.pt").unlink(missing_ok=True)
        if world > 1:
            dist.barrier()  # nobody looks for the model before it is there
    return rows


def run_steps(learner: Learner, views: TrainingViews, recipe: Recipe, made_by: dict[str, Any]) -> list[dict]:
    """All steps that a training still has before it, with a state on disk every `checkpoint_every`; the curve."""
    rank, world = rank_and_world()
    state_file = Path(recipe.out) / "state.pt"
    steps = max(1, math.ceil(recipe.epochs * len(views.files) / recipe.batch_size))
    trained = [parameter for parameter in learner.train().parameters() if parameter.requires_grad]
    options = {"momentum": recipe.momentum, "nesterov": True, "weight_decay": recipe.weight_decay}
    optimizer = SGD(trained, lr=recipe.rate, **options)
    rows = load_state(state_file, learner, optimizer, made_by)
    first = rows[-1]["step"] if rows else 0
    batches = positions(recipe, rank, world, range(first, steps))
    loader = DataLoader(views, batch_sampler=batches, num_workers=recipe.workers, pin_memory=trained[0].is_cuda)
    parts = iter(loader)
    model = learner if world == 1 else DistributedDataParallel(learner)
    started = time.perf_counter() - (rows[-1]["seconds"] if rows else 0.0)
    totals = torch.zeros(2, device=trained[0].device)
    for step in trange(first, steps, initial=first, total=steps, unit="step", disable=rank > 0):
        torch.manual_seed((recipe.seed * (steps + 1) + step) * world + rank)
        rate = recipe.rate * learning_rate(step, steps, recipe.warmup)
        optimizer.param_groups[0]["lr"] = rate
        totals += one_step(model, optimizer, parts, recipe)
        done = step + 1
        if done % recipe.log_every and done < steps:
            continue
        if world > 1:
            dist.all_reduce(totals)
        since = done - (rows[-1]["step"] if rows else 0)
        loss, accuracy = (totals / (world * since)).tolist()
        seconds = round(time.perf_counter() - started, 3)
        rows.append({"step": done, "loss": loss, "accuracy": accuracy, "lr": rate, "seconds": seconds})
        totals.zero_()
        if done % recipe.checkpoint_every == 0 and done < steps and rank == 0:
            save_state(state_file, learner, optimizer, made_by, rows)
    return rows


def one_step(model: nn.Module, optimizer: Optimizer, parts: Iterator, recipe: Recipe) -> Tensor:
    """One optimizer step; this process's mean loss and accuracy, (2,)."""
    optimizer.zero_grad()
    trained = optimizer.param_groups[0]["params"]
    device = trained[0].device
    totals = torch.zeros(2, device=device)
    for part in range(recipe.accumulate):
        images, classes = next(parts)
        images = images.to(device, non_blocking=True, memory_format=torch.channels_last)
        # gradients are averaged over processes once a step, with its last part
        alone = isinstance(model, DistributedDataParallel) and part + 1 < recipe.accumulate
        with model.no_sync() if alone else nullcontext():
            loss, accuracy = model(images, classes.to(device, non_blocking=True))
            (loss / recipe.accumulate).backward()
        totals += torch.stack([loss.detach(), accuracy]) / recipe.accumulate
    norm = nn.utils.clip_grad_norm_(trained, recipe.clip)
    if not (norm.isfinite() and totals.isfinite().all()):
        raise FloatingPointError(f"{recipe.out}: loss {totals[0]:g}, length of the gradient {norm:g}; lower `rate`")
    optimizer.step()
    return totals


def save_state(path: Path, learner: Learner, optimizer: Optimizer, made_by: dict, rows: list) -> None:
    """Everything that the next step depends on. Raises `OSError` naming a file that could not be written."""
    state = {"made_by": made_by, "rows": rows, "learner": learner.state_dict(), "optimizer": optimizer.state_dict()}
    try:
        with replacing(path) as temporary, open(temporary, "wb") as file:
            torch.save(state, file)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


def load_state(path: Path, learner: Learner, optimizer: Optimizer, made_by: dict) -> list[dict]:
    """Put back what `save_state` wrote; returns its rows, none where there is no state.

    Raises `ValueError` where the file is damaged, or of a training that is not `made_by`.
    """
    if not path.is_file():
        return []
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # of half a file: IndexError, OSError, RuntimeError, UnpicklingError
        reason = str(error).partition(". ")[0]  # what follows advises to unpickle without thought
        raise ValueError(f"{path} is damaged ({reason}); delete it, and training starts again") from error
    check_same(state["made_by"], made_by, path)
    learner.load_state_dict(state["learner"])
    optimizer.load_state_dict(state["optimizer"])
    return state["rows"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Train as the recipe says that the command names; 1, and one line, for what cannot be."""
    parser = argparse.ArgumentParser(prog="python -m recipes.gldv2.train", description=__doc__.partition("\n")[0])
    parser.add_argument("recipe", help="a YAML file as recipes/gldv2/recipe.yaml, which says what each value means")
    path = parser.parse_args(arguments).recipe
    rank, _ = rank_and_world()
    try:
        recipe = read_recipe(path)
        rows = train(recipe)
    except (ValueError, OSError, FolderBusyError, FloatingPointError) as error:
        # what a loading process raises comes with its traceback, the message last
        line = str(error).strip().rpartition("\n")[2].rpartition("ImageError: ")[2]
        if isinstance(error, OSError) and error.filename is not None:
            line = f"{error.filename}: {error.strerror}"
        if rank == 0 or isinstance(error, ImageError):  # every process meets the same fault, but for its pictures
            print(f"train: {line}", file=sys.stderr)
        return 1
    if rank == 0:
        print(f"{recipe.out}/model.safetensors: {rows[-1]['step']} steps, loss {rows[-1]['loss']:.3f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
