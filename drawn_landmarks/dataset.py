"""Benchmarks and training sets of synthetic landmarks on disk: drawn once, resumed where a run was stopped."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
from tqdm.auto import tqdm

from ssr_lib.benchmark import Benchmark
from ssr_lib.files import folder_lock, read_json, write_atomic

from . import plan
from .plan import Job
from .spec import SyntheticSpec
from .worker import Studio, read_record

UNRELATED = 50  # pictures of other landmarks listed for each query


@dataclass(frozen=True)
class LabelledImages:
    """Training pictures: file names relative to `root`, and for each the number of its landmark, (N,) int64."""

    root: Path
    files: Sequence[str]
    labels: np.ndarray

    def __post_init__(self):
        object.__setattr__(self, "root", Path(self.root))
        object.__setattr__(self, "labels", np.asarray(self.labels, dtype=np.int64))
        if len(self.files) != len(self.labels):
            raise ValueError(f"{len(self.files)} files but {len(self.labels)} labels; one label for each is wanted")

    def __len__(self) -> int:
        return len(self.files)


def draw_benchmark(
    spec: SyntheticSpec, directory: Path | str, *, processes: int | None = None, progress: bool = True
) -> dict[str, Benchmark]:
    """Draw a benchmark, or finish one that was begun; what is on disk and intact is not drawn again.

    Returns the same database with five sets of query pictures of the same views: "ordinary", "reskinned" (the landmark
    in another style), "grey", "night" and "masked" (the landmark taken away). `extra` holds, for each query, "twins",
    "doubles" (also junk) and "unrelated". `processes`: None for one per core. The bytes depend on the spec alone.
    Raises `ValueError` where the directory holds something else.
    """
    root = Path(directory)
    jobs = plan.benchmark_jobs(spec)
    records = _draw_all(spec, "benchmark", root, jobs, processes, progress)
    benchmarks = _benchmarks(spec, root, jobs, records)
    _finish(spec, "benchmark", root, records, benchmarks)
    return benchmarks


def draw_training(
    spec: SyntheticSpec,
    directory: Path | str,
    *,
    views: int = 20,
    regime: str = "ordinary",
    processes: int | None = None,
    progress: bool = True,
) -> LabelledImages:
    """Draw `views` pictures of each of `spec.landmarks` landmarks, none of them any benchmark's, or finish drawing.

    `regime`: "ordinary", a landmark has one style; "reskinned", each view has a random style, so that only structure
    identifies a landmark. Styles are never from the held-out families. Raises `ValueError` as `draw_benchmark`.
    """
    if regime not in ("ordinary", "reskinned"):
        raise ValueError(f"training regime is {regime!r}; 'ordinary' or 'reskinned' is wanted")
    if views < 1:
        raise ValueError(f"views is {views}; at least 1 view of each landmark is wanted")
    root = Path(directory)
    task = f"training {regime} {views}"
    jobs = plan.training_jobs(spec, views)
    records = _draw_all(spec, task, root, jobs, processes, progress)
    files = [picture["file"] for record in records for picture in record["pictures"]]
    labels = [job.index for job, record in zip(jobs, records, strict=True) for _ in record["pictures"]]
    _finish(spec, task, root, records, {})
    return LabelledImages(root, files, np.array(labels))


def _draw_all(spec, task: str, root: Path, jobs: list[Job], processes, progress: bool) -> list[dict]:
    """The records of all jobs, in order; those that are missing are drawn by `processes` workers."""
    digest = spec.digest(task)
    _claim(root, spec, task, digest)
    total = sum(job.views + 5 * job.queries + job.twins + job.doubles for job in jobs)
    with tqdm(total=total, desc=f"drawing {spec.name}", unit="image", disable=not progress) as bar:
        records: dict[Job, dict] = {}
        missing = []
        for job in jobs:
            record = read_record(root, job, digest)
            if record is None:
                missing.append(job)
            else:
                records[job] = record
                bar.update(len(record["pictures"]))
        processes = min(processes or _cores(), len(missing))
        if missing:
            with folder_lock(root):
                if processes == 1:
                    _draw_here(spec, task, root, missing, bar)
                else:
                    _draw_apart(spec, task, root, missing, processes, bar)
    return [records.get(job) or _must_read(root, job, digest) for job in jobs]


def _cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _must_read(root: Path, job: Job, digest: str) -> dict:
    record = read_record(root, job, digest)
    if record is None:
        raise OSError(f"{root}: the pictures of {job.kind} {job.index} changed while they were drawn; run again")
    return record


def _draw_here(spec, task, root, jobs, bar) -> None:
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        studio = Studio(spec, task, root)
        for job in jobs:
            bar.update(len(studio.draw(job)["pictures"]))
    finally:
        cv2.setNumThreads(threads)


def _draw_apart(spec, task, root, jobs, processes: int, bar) -> None:
    """Interpreters of their own, not forks: safe under notebooks, threads, and scripts without a main guard."""
    workers, readers, errors = [], [], []
    for share in plan.shares(jobs, processes):
        order = {"spec": asdict(spec), "task": task, "root": str(root.resolve()), "jobs": [asdict(j) for j in share]}
        worker = subprocess.Popen(
            [sys.executable, "-m", "drawn_landmarks.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).resolve().parents[1],
        )
        workers.append(worker)
        with contextlib.suppress(BrokenPipeError):  # a worker that died at once is reported below
            worker.stdin.write(json.dumps(order))
            worker.stdin.close()
    try:
        for worker in workers:
            reader = threading.Thread(target=lambda w=worker: [bar.update(int(line)) for line in w.stdout], daemon=True)
            watcher = threading.Thread(target=lambda w=worker: errors.append((w, w.stderr.read())), daemon=True)
            reader.start()
            watcher.start()
            readers += [reader, watcher]
        for thread in readers:
            thread.join()
        codes = [worker.wait() for worker in workers]
    finally:
        for worker in workers:
            if worker.poll() is None:
                worker.terminate()
                worker.wait()
    if any(codes):
        said = next(text for worker, text in errors if worker.returncode)
        raise RuntimeError(f"a drawing process ended with status {next(c for c in codes if c)}:\n{said[-2000:]}")


def _claim(root: Path, spec: SyntheticSpec, task: str, digest: str) -> None:
    """Take the directory for this spec, or raise where it holds another."""
    path = root / "spec.json"
    if path.exists():
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{path} is damaged ({error}); delete the directory and draw again") from error
        if found.get("digest") != digest:
            raise ValueError(
                f"{root} holds {found.get('task')} {found.get('spec')}, digest {found.get('digest')}; wanted is {task} "
                f"{asdict(spec)}, digest {digest}: use another directory or delete this one"
            )
        return
    if root.exists() and any(not found.name.endswith((".part", ".lock")) for found in root.iterdir()):
        raise ValueError(f"{root} holds files but no spec.json; use an empty directory")
    write_atomic(path, json.dumps({"digest": digest, "task": task, "spec": asdict(spec)}, indent=1) + "\n")


def _finish(spec, task, root: Path, records, benchmarks: dict[str, Benchmark]) -> None:
    """Write, unless it is there, the ground truth and, last, what was drawn: counts by role and difficulty."""
    counts: dict[str, int] = {}
    for record in records:
        for picture in record["pictures"]:
            for key in {picture["role"], f"{picture['role']} {picture.get('difficulty', '')}".strip()}:
                counts[key] = counts.get(key, 0) + 1
    done = {"digest": spec.digest(task), "task": task, "pictures": dict(sorted(counts.items()))}
    text = json.dumps(done, indent=1) + "\n"
    changed = [variant for variant in benchmarks if not _is_stored(benchmarks[variant], root / f"{variant}.json")]
    if not changed and read_json(root / "drawn.json") == done:
        return  # a finished set may lie on a disk that cannot be written
    with folder_lock(root, wait=True):
        for variant in changed:
            benchmarks[variant].save(root / f"{variant}.json")
        write_atomic(root / "drawn.json", text)


def _is_stored(benchmark: Benchmark, path: Path) -> bool:
    """Whether the file `path` says what `benchmark` does."""
    content = lambda found: json.dumps(asdict(found) | {"root": str(found.root.resolve())}, default=np.ndarray.tolist)
    try:
        return content(Benchmark.load(path)) == content(benchmark)
    except (OSError, ValueError, KeyError, TypeError):  # absent or damaged
        return False


def _benchmarks(spec, root: Path, jobs: list[Job], records: list[dict]) -> dict[str, Benchmark]:
    """The ground truth of all variants from the records."""
    roles = ("view", "twin", "double", "distractor")
    entries = [
        (picture, job)
        for job, record in zip(jobs, records, strict=True)
        for picture in record["pictures"]
        if picture["role"] in roles
    ]
    database = [picture["file"] for picture, _ in entries]
    role = np.array([picture["role"] for picture, _ in entries])
    label = np.array([picture["difficulty"] for picture, _ in entries])
    owner = np.array([job.index if job.kind == "landmark" else -1 for _, job in entries])
    outside = np.flatnonzero(np.isin(role, ("view", "distractor")) & (label != "junk") | (role == "distractor"))
    lists: dict[str, list] = {key: [] for key in ("easy", "hard", "junk", "twins", "doubles", "unrelated")}
    queries: dict[str, list[str]] = {variant: [] for variant in plan.VARIANTS}
    boxes, groups = [], []
    for job, record in zip(jobs, records, strict=True):
        mine = owner == job.index
        for picture in record["pictures"]:
            if picture["role"] != "ordinary":
                continue
            rng = np.random.default_rng([*plan.stream(spec, "benchmark"), plan.COUNT, job.index, picture["query"]])
            others = outside[owner[outside] != job.index]
            for key in ("easy", "hard"):
                lists[key].append(np.flatnonzero(mine & (role == "view") & (label == key)))
            doubles = np.flatnonzero(mine & (role == "double"))
            lists["junk"].append(np.union1d(np.flatnonzero(mine & (role == "view") & (label == "junk")), doubles))
            lists["twins"].append(np.flatnonzero(mine & (role == "twin")))
            lists["doubles"].append(doubles)
            lists["unrelated"].append(np.sort(rng.choice(others, min(UNRELATED, len(others)), replace=False)))
            boxes.append(_query_box(rng, picture["shown"], spec.size))
            groups.append(f"{spec.name}-{job.index:05d}")
            for variant in plan.VARIANTS:
                queries[variant].append(f"queries/{variant}/{Path(picture['file']).name}")
    return {
        variant: Benchmark(
            name=f"{spec.name}-{variant}",
            root=root,
            database=database,
            queries=queries[variant],
            boxes=boxes,
            groups=groups,
            **{key: lists[key] for key in ("easy", "hard", "junk")},
            extra={key: lists[key] for key in ("twins", "doubles", "unrelated")},
        )
        for variant in plan.VARIANTS
    }


def _query_box(rng, seen, size: int) -> tuple[float, float, float, float]:
    """The box a person would draw around the landmark: a little larger than it, or a little smaller."""
    if seen is None:
        return (0.0, 0.0, float(size), float(size))
    x0, y0, x1, y1 = seen
    margin = rng.uniform(-0.03, 0.06, 4) * [x1 - x0, y1 - y0, x1 - x0, y1 - y0]
    box = np.array([x0, y0, x1, y1]) + margin * [-1, -1, 1, 1]
    return tuple(round(float(v), 1) for v in np.clip(box, 0, size))
