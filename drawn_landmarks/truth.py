"""The ground truth of a drawn benchmark, from the records of what was measured in its pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ssr_lib.benchmark import Benchmark

from . import plan
from .plan import Job
from .spec import SyntheticSpec

UNRELATED = 50  # pictures of other landmarks listed for each query
ROLES = ("view", "same_style", "same_building", "distractor")  # of database pictures
LISTS = ("easy", "hard", "junk")
EXTRA = ("same_style", "same_building", "unrelated")


def ground_truth(spec: SyntheticSpec, root: Path, jobs: list[Job], records: list[dict]) -> dict[str, Benchmark]:
    """The benchmark of every form of the queries."""
    database, owners, queries = [], [], []
    for job, record in zip(jobs, records, strict=True):
        owner = job.index if job.kind == "landmark" else -1
        for picture in record["pictures"]:
            if picture["role"] in ROLES:
                database.append(picture)
                owners.append(owner)
            elif picture["role"] == "ordinary":
                queries.append((owner, picture))
    role = np.array([picture["role"] for picture in database])
    difficulty = np.array([picture["difficulty"] for picture in database])
    owners = np.array(owners)
    good = (role == "view") & (difficulty != "junk")
    outside = np.flatnonzero(good | (role == "distractor"))
    lists: dict[str, list[np.ndarray]] = {key: [] for key in (*LISTS, *EXTRA)}
    boxes = []
    for landmark, query in queries:
        rng = np.random.default_rng([*plan.stream(spec, "benchmark"), plan.COUNT, landmark, query["query"]])
        mine = owners == landmark
        views = mine & (role == "view")
        same_building = np.flatnonzero(mine & (role == "same_building"))
        lists["easy"].append(np.flatnonzero(views & (difficulty == "easy")))
        lists["hard"].append(np.flatnonzero(views & (difficulty == "hard")))
        lists["junk"].append(np.union1d(np.flatnonzero(views & (difficulty == "junk")), same_building))
        lists["same_style"].append(np.flatnonzero(mine & (role == "same_style")))
        lists["same_building"].append(same_building)
        others = outside[owners[outside] != landmark]
        lists["unrelated"].append(np.sort(rng.choice(others, min(UNRELATED, len(others)), replace=False)))
        boxes.append(_query_box(rng, query["shown"], spec.size))
    names = [Path(query["file"]).name for _, query in queries]
    return {
        form: Benchmark(
            name=f"{spec.name}-{form}",
            root=root,
            database=[picture["file"] for picture in database],
            queries=[f"queries/{form}/{name}" for name in names],
            boxes=boxes,
            groups=[f"{spec.name}-{landmark:05d}" for landmark, _ in queries],
            **{key: lists[key] for key in LISTS},
            extra={key: lists[key] for key in EXTRA},
        )
        for form in plan.FORMS
    }


def _query_box(rng, seen, size: int) -> tuple[float, float, float, float]:
    """The box a person would draw around the landmark: a little larger than it, or a little smaller."""
    if seen is None:
        return (0.0, 0.0, float(size), float(size))
    x0, y0, x1, y1 = seen
    margin = rng.uniform(-0.03, 0.06, 4) * [x1 - x0, y1 - y0, x1 - x0, y1 - y0]
    box = np.array([x0, y0, x1, y1]) + margin * [-1, -1, 1, 1]
    return tuple(round(float(v), 1) for v in np.clip(box, 0, size))
