"""Who draws: this process, or interpreters of their own."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict
from pathlib import Path
from typing import TextIO

import cv2

from .plan import Job
from .spec import SyntheticSpec
from .worker import Studio

Keep = Callable[[dict], None]  # takes the record of a job that is done


def draw_here(spec: SyntheticSpec, task: str, root: Path, jobs: list[Job], keep: Keep) -> None:
    """Draw jobs in this process."""
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        studio = Studio(spec, task, root)
        for job in jobs:
            keep(studio.draw(job))
    finally:
        cv2.setNumThreads(threads)


def draw_apart(spec: SyntheticSpec, task: str, root: Path, shares: list[list[Job]], keep: Keep) -> None:
    """Draw each share in an interpreter of its own, no fork: safe under notebooks, threads, scripts without main guard.

    Raises `RuntimeError` with what a worker said where one fails; the others are stopped then.
    """
    workers = []

    def draw_share(jobs: list[Job]) -> None:
        order = {"spec": asdict(spec), "task": task, "root": str(root.resolve()), "jobs": [asdict(job) for job in jobs]}
        with tempfile.TemporaryFile("w+", encoding="utf-8") as said, _start(said) as worker:
            workers.append(worker)
            with contextlib.suppress(BrokenPipeError):  # a worker that died at once is reported below
                worker.stdin.write(json.dumps(order))
                worker.stdin.close()
            for line in worker.stdout:
                keep(json.loads(line))
            if worker.wait():
                said.seek(0)
                words = said.read()[-2000:].strip()
                raise RuntimeError(f"a drawing process ended with status {worker.returncode}:\n{words}")

    with ThreadPoolExecutor(len(shares)) as pool:
        running = [pool.submit(draw_share, share) for share in shares]
        try:
            for done in as_completed(running):
                done.result()
        finally:
            for worker in workers:
                worker.kill()


def _start(said: TextIO) -> subprocess.Popen:
    """A worker that waits for its share; what it complains of is written to `said`."""
    return subprocess.Popen(
        [sys.executable, "-m", f"{__package__}.worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=said,
        text=True,
        cwd=Path(__file__).resolve().parents[1],
    )
