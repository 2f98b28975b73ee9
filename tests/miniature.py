"""A revisited benchmark in miniature, in exactly the layout of a fetched one, and untrained networks as its checkpoints."""

import hashlib
import pickle
import shutil
from pathlib import Path

import cv2
import numpy as np

from ssr_lib.benchmark import Benchmark
from ssr_lib.images import PRESETS
from ssr_lib.network import RetrievalNet
from ssr_lib.weights import save_checkpoint


def build(folder: Path, name: str, benchmark: Benchmark, groups: list[str], distractors: list[str]) -> str:
    """A set `folder`/`name` of the queries of `groups`, and `folder`/revisitop1m with the distractors and their list.

    Returns the SHA-256 of its ground truth. A query's box leaves out a margin; of its positives
    the first is easy, the second hard, the third junk, and so on.
    """
    jpg = folder / name / "jpg"
    jpg.mkdir(parents=True)
    queries = [q for q, group in enumerate(benchmark.groups) if group in groups]
    used = sorted({int(i) for q in queries for i in (*benchmark.easy[q], *benchmark.hard[q])})
    place = {image: i for i, image in enumerate(used)}
    for file in (*(benchmark.database[i] for i in used), *(benchmark.queries[q] for q in queries)):
        shutil.copy(benchmark.root / file, jpg / Path(file).name)
    truth = []
    for q in queries:
        height, width = cv2.imread(str(benchmark.root / benchmark.queries[q])).shape[:2]
        box = [0.05 * width, 0.05 * height, 0.95 * width, 0.95 * height]
        positives = np.array([place[int(i)] for i in (*benchmark.easy[q], *benchmark.hard[q])], dtype=np.int64)
        truth.append({"bbx": box, "easy": positives[::3], "hard": positives[1::3], "junk": positives[2::3]})
    record = {
        "imlist": [Path(benchmark.database[i]).stem for i in used],
        "qimlist": [Path(benchmark.queries[q]).stem for q in queries],
        "gnd": truth,
    }
    data = pickle.dumps(record, protocol=2)
    (folder / name / f"gnd_{name}.pkl").write_bytes(data)
    shard = folder / "revisitop1m" / "jpg" / "a0"
    shard.mkdir(parents=True, exist_ok=True)
    for file in distractors:
        shutil.copy(benchmark.root / file, shard / Path(file).name)
    listed = sorted(f"a0/{path.name}" for path in shard.iterdir())
    (folder / "revisitop1m" / "revisitop1m.txt").write_text("\n".join(listed) + "\n")
    return hashlib.sha256(data).hexdigest()


def checkpoints(folder: Path) -> dict[str, dict[str, str]]:
    """Tiny untrained networks as checkpoints below `folder`: their names by backbone and head."""
    named = {}
    extra = {"family": "cvnet", "trained_on": "GLDv2-clean", "preprocess": PRESETS["cvnet"].to_dict()}
    heads = {"plain": {"feed_forward": True}, "product": {"place": "last", "mid_channels": 16, "window": 3}}
    for backbone in ("resnet18", "resnet10t"):
        for head, options in heads.items():
            net = RetrievalNet(backbone, head, options, descriptor_dim=64, pretrained="none", seed=0)
            name = f"checkpoints/{backbone}-{head}"
            save_checkpoint(folder / name, net, extra)
            named.setdefault(backbone, {})[head] = name
    return named
