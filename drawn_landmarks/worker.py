"""Draws jobs: the pictures of one landmark and the record of what was measured in them.

Run as a module it draws one share of the jobs, printing the record of each: `python -m drawn_landmarks.worker`.
"""

from __future__ import annotations

import json
import sys
import zlib
from dataclasses import asdict
from pathlib import Path

import cv2
import numpy as np

from . import plan
from .building import Block, build
from .files import read_json, write_atomic
from .photo import to_grey
from .plan import Job
from .scene import View, difficulty, draw_view, good_query, well_framed
from .spec import QUERY_TRIES, SyntheticSpec
from .structures import Structure, draw_structure
from .styles import Style, draw_style
from .surroundings import Neighbourhood


def record_path(root: Path, job: Job) -> Path:
    """Where the record of a finished job is kept."""
    return root / "records" / f"{job.kind}_{job.index:05d}.json"


def intact(root: Path, record: dict) -> bool:
    """Whether every file of a record is on disk with the bytes that were written."""
    for picture in record["pictures"]:
        try:
            data = (root / picture["file"]).read_bytes()
        except OSError:
            return False
        if zlib.crc32(data) != picture["crc"]:
            return False
    return True


def read_record(root: Path, job: Job, digest: str) -> dict | None:
    """The record of a job, or None where it is missing, of another spec, unreadable, or its files are damaged."""
    record = read_json(record_path(root, job))
    if record is None or record.get("digest") != digest:
        return None
    return record if intact(root, record) else None


class Studio:
    """Draws the jobs of one spec; keeps what they share."""

    def __init__(self, spec: SyntheticSpec, task: str, root: Path):
        self.spec = spec
        self.task = task
        self.root = Path(root)
        self.digest = spec.digest(task)
        self.stream = plan.stream(spec, task)
        self.held_out = spec.held_out_styles and not task.startswith("training")
        folders = ["images"] if task.startswith("training") else ["database", *(f"queries/{f}" for f in plan.FORMS)]
        for folder in ("records", *folders):
            (self.root / folder).mkdir(parents=True, exist_ok=True)
        self.town = Neighbourhood.draw((*self.stream, plan.STREET))

    def rng(self, purpose: int, index: int, *more: int) -> np.random.Generator:
        return np.random.default_rng(np.random.SeedSequence([*self.stream, purpose, index, *more]))

    def structure(self, job: Job, purpose: int = plan.STRUCTURE) -> Structure:
        return draw_structure(self.rng(purpose, self._number(job)))

    def style(self, job: Job, purpose: int = plan.STYLE, *more: int, unlike: Style | None = None) -> Style:
        return draw_style(self.rng(purpose, self._number(job), *more), held_out=self.held_out, unlike=unlike)

    def build(self, job: Job, structure: Structure, style: Style, *more: int) -> list[Block]:
        return build(structure, style, self.rng(plan.TEXTURE, self._number(job), *more))

    @staticmethod
    def _number(job: Job) -> int:
        return job.index + (1_000_000 if job.kind == "distractor" else 0)

    def draw(self, job: Job) -> dict:
        """Draw the job's pictures; their record, which is written last: a picture counts once its checksum is known."""
        kinds = {"landmark": self._landmark, "distractor": self._distractor, "training": self._training}
        record = {"digest": self.digest, "job": asdict(job), "pictures": kinds[job.kind](job)}
        write_atomic(record_path(self.root, job), json.dumps(record, separators=(",", ":")) + "\n")
        return record

    def _view(self, job: Job, purpose: int, number: int, structure, blocks, **how) -> View:
        seed = (*self.stream, purpose, self._number(job), number)
        return draw_view(seed, structure, blocks, self.town, self.spec.size, **how)

    def _save(self, view: View, file: str, role: str, **more) -> dict:
        """Write a view's picture; what its record says of it."""
        record = {"file": file, "role": role, "crc": self._write(view.image, file, view.quality)}
        for key in ("seen", "scale", "occluded"):
            record[key] = round(getattr(view, key), 4)
        return {**record, "difficulty": difficulty(view), "box": view.box, **more}

    def _write(self, image: np.ndarray, file: str, quality: int) -> int:
        """Write a picture as JPEG; the checksum of its bytes."""
        ok, data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
        if not ok:
            raise OSError(f"{self.root / file}: OpenCV could not encode the picture")
        with open(self.root / file, "wb", buffering=0) as target:
            target.write(data)
        return zlib.crc32(data)

    def _views(self, job: Job, purpose: int, count: int, structure, blocks, stem: str, role: str) -> list[dict]:
        """Draw and write `count` views of a building."""
        pictures = []
        for v in range(count):
            view = self._view(job, purpose, v, structure, blocks)
            pictures.append(self._save(view, f"{stem}{v:02d}.jpg", role))
        return pictures

    def _landmark(self, job: Job) -> list[dict]:
        structure, style = self.structure(job), self.style(job)
        blocks = self.build(job, structure, style)
        name = f"{job.index:05d}"
        pictures = self._views(job, plan.VIEW, job.views, structure, blocks, f"database/{name}_v", "view")
        for q in range(job.queries):
            pictures += self._query(job, q, structure, blocks, name)
        other = self.structure(job, plan.OTHER_STRUCTURE)
        others = (plan.SAME_STYLE, job.same_style, other, self.build(job, other, style, 1))
        pictures += self._views(job, *others, f"database/{name}_s", "same_style")
        blocks = self.build(job, structure, self.style(job, plan.OTHER_STYLE, unlike=style), 2)
        others = (plan.SAME_BUILDING, job.same_building, structure, blocks)
        return pictures + self._views(job, *others, f"database/{name}_b", "same_building")

    def _query(self, job: Job, q: int, structure, blocks, name: str) -> list[dict]:
        """The query in all its forms."""
        best, number = self._best_view(job, q, structure, blocks)
        other_style = self.style(job, plan.RESTYLE, q, unlike=self.style(job))
        restyled = self.build(job, structure, other_style, 3, q)
        views = {
            "ordinary": best,
            "restyled": self._view(job, plan.QUERY, number, structure, restyled, query=True),
            "night": self._view(job, plan.QUERY, number, structure, blocks, query=True, light_kind="night"),
            "masked": self._view(job, plan.QUERY, number, structure, [], query=True),
        }
        more = {"query": q, "shown": best.box}
        pictures = []
        for form, view in views.items():
            pictures.append(self._save(view, f"queries/{form}/{name}_q{q}.jpg", form, **more))
        file = f"queries/grey/{name}_q{q}.jpg"
        crc = self._write(to_grey(best.image), file, best.quality)
        return [*pictures, {"file": file, "role": "grey", "crc": crc, **more}]

    def _best_view(self, job: Job, q: int, structure, blocks) -> tuple[View, int]:
        """The first of some views that shows the landmark well, else the best of them; and its number."""
        best = None
        number = 0
        for attempt in range(QUERY_TRIES):
            tried = 100 * q + attempt
            seed = (*self.stream, plan.QUERY, self._number(job), tried)
            if attempt < QUERY_TRIES - 1 and not well_framed(seed, structure, blocks, self.spec.size):
                continue
            view = self._view(job, plan.QUERY, tried, structure, blocks, query=True)
            if best is None or view.seen * (1 - view.occluded) > best.seen * (1 - best.occluded):
                best = view
                number = tried
            if good_query(view):
                break
        return best, number

    def _distractor(self, job: Job) -> list[dict]:
        structure = self.structure(job)
        blocks = []
        if job.index % 4:  # one in four shows a street only
            blocks = self.build(job, structure, self.style(job))
        return self._views(job, plan.VIEW, job.views, structure, blocks, f"database/x{job.index:05d}_", "distractor")

    def _training(self, job: Job) -> list[dict]:
        structure = self.structure(job)
        restyled = "restyled" in self.task
        blocks = [] if restyled else self.build(job, structure, self.style(job))
        pictures = []
        for v in range(job.views):
            if restyled:
                blocks = self.build(job, structure, self.style(job, plan.RESTYLE, v), 3, v)
            view = self._view(job, plan.VIEW, v, structure, blocks)
            pictures.append(self._save(view, f"images/{job.index:05d}_{v:03d}.jpg", "view"))
        return pictures


def main() -> None:
    """Read one share of a plan from standard input as JSON and draw it."""
    order = json.load(sys.stdin)
    cv2.setNumThreads(1)
    studio = Studio(SyntheticSpec(**order["spec"]), order["task"], Path(order["root"]))
    for job in order["jobs"]:
        print(json.dumps(studio.draw(Job(**job))), flush=True)


if __name__ == "__main__":
    main()
