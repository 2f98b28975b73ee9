"""Draws jobs: the pictures of one landmark and the record of what was measured in them.

Run as a module it draws one share of the jobs, printing a line for each: `python -m drawn_landmarks.worker`.
"""

from __future__ import annotations

import json
import sys
import zlib
from dataclasses import asdict
from pathlib import Path

import cv2
import numpy as np

from ssr_lib.files import write_atomic

from . import plan
from .building import Block, build
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
    try:
        record = json.loads(record_path(root, job).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return record if record.get("digest") == digest and intact(root, record) else None


class Studio:
    """Draws the jobs of one spec; keeps what they share."""

    def __init__(self, spec: SyntheticSpec, task: str, root: Path):
        self.spec, self.task, self.root = spec, task, Path(root)
        self.digest = spec.digest(task)
        self.stream = plan.stream(spec, task)
        self.held_out = spec.held_out_styles and not task.startswith("training")
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
        """Draw the job unless it is done; the record of its pictures."""
        record = read_record(self.root, job, self.digest)
        if record is None:
            pictures = {
                "landmark": self._landmark,
                "distractor": self._distractor,
                "training": self._training,
            }[job.kind](job)
            record = {"digest": self.digest, "job": asdict(job), "pictures": pictures}
            write_atomic(record_path(self.root, job), json.dumps(record, separators=(",", ":")) + "\n")
        return record

    def _view(self, job: Job, purpose: int, number: int, structure, blocks, **how) -> View:
        seed = (*self.stream, purpose, self._number(job), number)
        return draw_view(seed, structure, blocks, self.town, self.spec.size, **how)

    def _save(self, view_or_image, file: str, role: str, **more) -> dict:
        view = view_or_image if isinstance(view_or_image, View) else None
        image = view.image if view else view_or_image
        quality = more.pop("quality", view.quality if view else 90)
        ok, data = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
        if not ok:
            raise OSError(f"{self.root / file}: OpenCV could not encode the picture")
        data = data.tobytes()
        write_atomic(self.root / file, data)
        measured = {}
        if view:
            measured = {key: round(getattr(view, key), 4) for key in ("seen", "scale", "occluded")}
            measured |= {"difficulty": difficulty(view), "box": view.box}
        return {"file": file, "role": role, "crc": zlib.crc32(data), **measured, **more}

    def _landmark(self, job: Job) -> list[dict]:
        structure, style = self.structure(job), self.style(job)
        blocks = self.build(job, structure, style)
        name = f"{job.index:05d}"
        pictures = [
            self._save(self._view(job, plan.VIEW, v, structure, blocks), f"database/{name}_v{v:02d}.jpg", "view")
            for v in range(job.views)
        ]
        for q in range(job.queries):
            pictures += self._query(job, q, structure, blocks, name)
        other = self.structure(job, plan.OTHER_STRUCTURE)
        if job.twins:
            twin = self.build(job, other, style, 1)
            for v in range(job.twins):
                view = self._view(job, plan.TWIN, v, other, twin)
                pictures.append(self._save(view, f"database/{name}_t{v:02d}.jpg", "twin"))
        if job.doubles:
            double = self.build(job, structure, self.style(job, plan.OTHER_STYLE, unlike=style), 2)
            for v in range(job.doubles):
                view = self._view(job, plan.DOUBLE, v, structure, double)
                pictures.append(self._save(view, f"database/{name}_d{v:02d}.jpg", "double"))
        return pictures

    def _query(self, job: Job, q: int, structure, blocks, name: str) -> list[dict]:
        """The query in all its variants: the first of some views that shows the landmark well, else the best."""
        best, number = None, 0
        for attempt in range(QUERY_TRIES):
            seed = (*self.stream, plan.QUERY, self._number(job), 100 * q + attempt)
            if attempt < QUERY_TRIES - 1 and not well_framed(seed, structure, blocks, self.spec.size):
                continue
            view = self._view(job, plan.QUERY, 100 * q + attempt, structure, blocks, query=True)
            if best is None or view.seen * (1 - view.occluded) > best.seen * (1 - best.occluded):
                best, number = view, 100 * q + attempt
            if good_query(view):
                break
        style = self.style(job, plan.RESKIN, q, unlike=self.style(job))
        again = lambda these, **how: self._view(job, plan.QUERY, number, structure, these, query=True, **how)
        variants = {
            "ordinary": best,
            "reskinned": again(self.build(job, structure, style, 3, q)),
            "night": again(blocks, light_kind="night"),
            "masked": again([]),
        }
        box = best.box
        pictures = [
            self._save(view, f"queries/{variant}/{name}_q{q}.jpg", variant, query=q, shown=box)
            for variant, view in variants.items()
        ]
        grey = to_grey(best.image)
        pictures.append(
            self._save(grey, f"queries/grey/{name}_q{q}.jpg", "grey", query=q, shown=box, quality=best.quality)
        )
        return pictures

    def _distractor(self, job: Job) -> list[dict]:
        structure = self.structure(job)
        blocks = self.build(job, structure, self.style(job)) if job.index % 4 else []  # one in four shows a street only
        return [
            self._save(
                self._view(job, plan.VIEW, v, structure, blocks), f"database/x{job.index:05d}_{v:02d}.jpg", "distractor"
            )
            for v in range(job.views)
        ]

    def _training(self, job: Job) -> list[dict]:
        structure, style = self.structure(job), self.style(job)
        reskinned = "reskinned" in self.task
        blocks = None if reskinned else self.build(job, structure, style)
        pictures = []
        for v in range(job.views):
            if reskinned:
                blocks = self.build(job, structure, self.style(job, plan.RESKIN, v), 3, v)
            view = self._view(job, plan.VIEW, v, structure, blocks)
            pictures.append(self._save(view, f"images/{job.index:05d}_{v:03d}.jpg", "view"))
        return pictures


def main() -> None:
    """Read one share of a plan from standard input as JSON and draw it."""
    order = json.load(sys.stdin)
    cv2.setNumThreads(1)
    studio = Studio(SyntheticSpec(**order["spec"]), order["task"], Path(order["root"]))
    for job in order["jobs"]:
        record = studio.draw(Job(**job))
        print(len(record["pictures"]), flush=True)


if __name__ == "__main__":
    main()
