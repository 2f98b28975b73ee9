"""What is drawn for which file: every picture of a benchmark or training set, as jobs that one process can do alone."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np

from .spec import SyntheticSpec

VARIANTS = ("ordinary", "reskinned", "grey", "night", "masked")  # of every query
# What a random generator is for; the second number of every seed after the spec's own.
STRUCTURE, STYLE, OTHER_STRUCTURE, OTHER_STYLE, TEXTURE, VIEW, QUERY, TWIN, DOUBLE, COUNT, STREET, RESKIN = range(12)


@dataclass(frozen=True)
class Job:
    """All pictures of one landmark: numbers of views of itself, queries, twins and doubles; or one distractor."""

    kind: str  # landmark, distractor, training
    index: int
    views: int
    queries: int = 0
    twins: int = 0
    doubles: int = 0

    @property
    def cost(self) -> int:
        """About how many pictures' time it takes."""
        return 3 + self.views + 4 * self.queries + self.twins + self.doubles


def stream(spec: SyntheticSpec, task: str) -> tuple[int, int]:
    """The first numbers of every seed of a spec: different for each name and task, so that no landmark is shared."""
    return spec.seed, zlib.crc32(f"{task.split()[0]}/{spec.name}".encode())


def view_counts(spec: SyntheticSpec) -> np.ndarray:
    """Database views of each landmark, log-uniform in `spec.views`, (landmarks,) int."""
    if spec.fixed_views is not None:
        return np.full(spec.landmarks, spec.fixed_views)
    rng = np.random.default_rng([*stream(spec, "benchmark"), COUNT])
    low, high = np.log(spec.views[0]), np.log(spec.views[1] + 1)
    return np.minimum(np.exp(rng.uniform(low, high, spec.landmarks)).astype(int), spec.views[1])


def benchmark_jobs(spec: SyntheticSpec) -> list[Job]:
    """Landmarks, then distractors: three in four are views of buildings of their own, the rest of streets."""
    counts = view_counts(spec)
    jobs = [
        Job("landmark", i, int(counts[i]), spec.queries_per_landmark, spec.twins, spec.doubles)
        for i in range(spec.landmarks)
    ]
    share = 4  # views of one unrelated building
    for i in range(-(-spec.distractors // share)):
        jobs.append(Job("distractor", i, min(share, spec.distractors - share * i)))
    return jobs


def training_jobs(spec: SyntheticSpec, views: int) -> list[Job]:
    """`views` pictures of each landmark."""
    return [Job("training", i, views) for i in range(spec.landmarks)]


def shares(jobs: list[Job], processes: int) -> list[list[Job]]:
    """The jobs dealt out so that every process has about as much to do."""
    dealt: list[list[Job]] = [[] for _ in range(processes)]
    load = np.zeros(processes)
    for job in sorted(jobs, key=lambda job: -job.cost):
        i = int(np.argmin(load))
        dealt[i].append(job)
        load[i] += job.cost
    return dealt
