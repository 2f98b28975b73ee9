"""Benchmarks and training sets of drawn landmarks on disk: drawn once, resumed where a run was stopped."""

from __future__ import annotations

import json
import os
from collections import Counter
from dataclasses import asdict
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm

from ssr_lib.benchmark import Benchmark, LabelledImages

from . import plan
from .crew import draw_apart, draw_here
from .files import locked, read_json, write_atomic
from .plan import Job
from .spec import SyntheticSpec
from .truth import ground_truth
from .worker import read_record

REGIMES = ("ordinary", "restyled")


def draw_benchmark(
    spec: SyntheticSpec, folder: Path | str, *, processes: int | None = None, progress: bool = True
) -> dict[str, Benchmark]:
    """Draw a benchmark, or finish one that was begun; what is on disk and intact is not drawn again.

    Returns the same database with five forms of the same queries: "ordinary", "restyled" (the landmark in another
    style), "grey", "night" and "masked" (the landmark taken away). `extra` holds, for each query, "same_style" (other
    buildings, wrong answers), "same_building" (in another style, also junk) and "unrelated". `processes`: None for one
    a core. The bytes depend on the spec alone. Raises `ValueError` where the folder holds something else,
    `RuntimeError` where another process draws into it.
    """
    root = Path(folder)
    jobs = plan.benchmark_jobs(spec)
    records = _draw_all(spec, "benchmark", root, jobs, processes, progress)
    forms = ground_truth(spec, root, jobs, records)
    for form, benchmark in forms.items():
        if not _is_stored(benchmark, root / f"{form}.json"):
            benchmark.save(root / f"{form}.json")
    _finish(spec, "benchmark", root, records)
    return forms


def draw_training(
    spec: SyntheticSpec,
    folder: Path | str,
    *,
    views: int = 20,
    regime: str = "ordinary",
    processes: int | None = None,
    progress: bool = True,
) -> LabelledImages:
    """Draw `views` pictures of each of `spec.landmarks` landmarks, none of them any benchmark's, or finish drawing.

    `regime`: "ordinary", a landmark has one style; "restyled", each view has a random style, so that only structure
    identifies a landmark. Styles are never from the held-out families. Raises as `draw_benchmark`.
    """
    if regime not in REGIMES:
        raise ValueError(f"training regime is {regime!r}; 'ordinary' or 'restyled' is wanted")
    if not isinstance(views, int) or views < 1:
        raise ValueError(f"views is {views!r}; at least 1 view of each landmark is wanted")
    root = Path(folder)
    task = f"training {regime} {views}"
    jobs = plan.training_jobs(spec, views)
    records = _draw_all(spec, task, root, jobs, processes, progress)
    _finish(spec, task, root, records)
    files = []
    for record in records:
        files += [picture["file"] for picture in record["pictures"]]
    return LabelledImages(root, files, np.repeat(np.arange(spec.landmarks), views))


def _draw_all(spec, task: str, root: Path, jobs: list[Job], processes: int | None, progress: bool) -> list[dict]:
    """The records of all jobs, in order; those that are missing are drawn by `processes` workers."""
    digest = spec.digest(task)
    _claim(root, spec, task, digest)
    records = {}
    with tqdm(total=sum(job.pictures for job in jobs), desc=f"drawing {spec.name}", disable=not progress) as bar:

        def keep(record: dict) -> None:
            records[Job(**record["job"])] = record
            bar.update(len(record["pictures"]))

        for job in jobs:
            record = read_record(root, job, digest)
            if record is not None:
                keep(record)
        missing = [job for job in jobs if job not in records]
        if missing:
            processes = min(processes or _cores(), len(missing))
            with locked(root):
                if processes == 1:
                    draw_here(spec, task, root, missing, keep)
                else:
                    draw_apart(spec, task, root, plan.shares(missing, processes), keep)
    return [records[job] for job in jobs]


def _cores() -> int:
    """Cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _claim(root: Path, spec: SyntheticSpec, task: str, digest: str) -> None:
    """Take the folder for this spec, or raise where it holds another."""
    path = root / "spec.json"
    if path.exists():
        found = read_json(path)
        if found is None:
            raise ValueError(f"{path} is damaged; delete the folder and draw again")
        if found.get("digest") != digest:
            raise ValueError(
                f"{root} holds {found.get('task')} {found.get('spec')}, digest {found.get('digest')}; wanted is {task} "
                f"{asdict(spec)}, digest {digest}: use another folder or delete this one"
            )
        return
    if root.exists() and any(not found.name.endswith((".part", ".lock")) for found in root.iterdir()):
        raise ValueError(f"{root} holds files but no spec.json; use an empty folder")
    root.mkdir(parents=True, exist_ok=True)
    write_atomic(path, json.dumps({"digest": digest, "task": task, "spec": asdict(spec)}, indent=1) + "\n")


def _finish(spec, task, root: Path, records: list[dict]) -> None:
    """Write, unless it is there, what was drawn: counts by role and difficulty."""
    counts = Counter()
    for record in records:
        for picture in record["pictures"]:
            counts[picture["role"]] += 1
            if "difficulty" in picture:
                counts[f"{picture['role']} {picture['difficulty']}"] += 1
    done = {"digest": spec.digest(task), "task": task, "pictures": dict(sorted(counts.items()))}
    if read_json(root / "drawn.json") != done:  # a finished set may lie on a disk that cannot be written
        write_atomic(root / "drawn.json", json.dumps(done, indent=1) + "\n")


def _is_stored(benchmark: Benchmark, path: Path) -> bool:
    """Whether the file `path` says what `benchmark` does."""
    try:
        stored = Benchmark.load(path)
    except (OSError, ValueError):  # absent or damaged
        return False
    contents = []
    for found in (stored, benchmark):
        record = asdict(found) | {"root": str(found.root.resolve())}
        contents.append(json.dumps(record, default=np.ndarray.tolist))
    return contents[0] == contents[1]
