"""Benchmarks in the revisited form, and tables of labels, of pictures that are made in a second."""

import pickle

import numpy as np
from PIL import Image


def draw(folder, name, landmark, view):
    """A picture of a landmark: its own coarse pattern with the noise of the view."""
    coarse = np.random.default_rng([landmark, 7]).integers(0, 256, (6, 8, 3), np.uint8)
    picture = np.asarray(Image.fromarray(coarse).resize((96, 72), Image.Resampling.NEAREST), int)
    noise = np.random.default_rng([landmark, view]).integers(-60, 61, picture.shape)
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray((picture + noise).clip(0, 255).astype(np.uint8)).save(folder / name)


def city(folder, first):
    """A benchmark of three landmarks with two queries, two easy and a hard picture each; returns its ground truth."""
    imlist, qimlist, gnd = [], [], []
    for landmark in range(first, first + 3):
        here = len(imlist)
        imlist += [f"{landmark}_{view}" for view in range(3)]
        qimlist += [f"{landmark}_{view}" for view in (3, 4)]
        gnd += [{"easy": [here, here + 1], "hard": [here + 2], "junk": [], "bbx": [4, 4, 60, 50]}] * 2
        for view in range(5):
            draw(folder / "jpg", f"{landmark}_{view}.jpg", landmark, view)
    truth = folder / f"gnd_{folder.name}.pkl"
    truth.write_bytes(pickle.dumps({"imlist": imlist, "qimlist": qimlist, "gnd": gnd}))
    return truth


def table(folder, rows):
    """A folder of pictures with its labels.csv; rows: (landmark, view, split)."""
    lines = ["file,label,split"]
    for landmark, view, split in rows:
        draw(folder, f"{landmark}_{view}.png", landmark, view)
        lines.append(f"{landmark}_{view}.png,{landmark},{split}")
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
