"""What is drawn for which file: every picture of a benchmark or training set, as jobs that one process can do alone."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np

from .spec import SyntheticSpec

FORMS = ("ordinary", "restyled", "grey", "night", "masked")  # of every query
# What a random generator is for: the second number of every seed after the spec's own. The order stays as it is, since
# with another number a picture would be another.
STRUCTURE, STYLE, OTHER_STRUCTURE, OTHER_STYLE, TEXTURE, VIEW, QUERY = range(7)
SAME_STYLE, SAME_BUILDING, COUNT, STREET, RESTYLE = range(7, 12)
UNRELATED_VIEWS = 4  # of one unrelated building, among the distractors


@dataclass(frozen=True)
class Job:
    """All pictures of one landmark: how many views of it, queries, views of what is like it; or one distractor."""

    kind: str  # landmark, distractor, training
    index: int
    views: int
    queries: int = 0
    same_style: int = 0
    same_building: int = 0

    @property
    def pictures(self) -> int:
        """How many it draws."""
        return self.views + len(FORMS) * self.queries + self.same_style + self.same_building


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
    extra = (spec.queries_per_landmark, spec.same_style, spec.same_building)
    jobs = [Job("landmark", i, int(count), *extra) for i, count in enumerate(view_counts(spec))]
    for i in range(-(-spec.distractors // UNRELATED_VIEWS)):
        jobs.append(Job("distractor", i, min(UNRELATED_VIEWS, spec.distractors - UNRELATED_VIEWS * i)))
    return jobs


def training_jobs(spec: SyntheticSpec, views: int) -> list[Job]:
    """`views` pictures of each landmark."""
    return [Job("training", i, views) for i in range(spec.landmarks)]


def shares(jobs: list[Job], processes: int) -> list[list[Job]]:
    """The jobs dealt out so that every process has about as much to do."""
    dealt: list[list[Job]] = [[] for _ in range(processes)]
    load = np.zeros(processes)
    for job in sorted(jobs, key=lambda job: -job.pictures):
        i = int(np.argmin(load))
        dealt[i].append(job)
        load[i] += 3 + job.pictures  # a building's textures take about as long as three pictures
    return dealt
