"""A folder of photographs as an index that follows it: new pictures are described, the others are not again."""

import hashlib
import inspect
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from torch import nn

from ssr_lib.datasets.folder import file_identity, list_pictures
from ssr_lib.extract import descriptors_of, fill
from ssr_lib.files import check_writable, digest
from ssr_lib.images import Preprocess
from ssr_lib.search import Prepared, knn
from ssr_lib.store import Store, picture_key


@dataclass(frozen=True)
class Gallery:
    """N described pictures: `files` relative to `folder`, `descriptors` (N, D) float32, one row for each.

    `unreadable`: the pictures that could not be described, and why. `skipped`: how many files are left out for which
    reason. `n_new`: how many pictures were described just now. `place`: the part of the index that they are in.
    """

    folder: Path
    files: list[str]
    descriptors: np.ndarray
    unreadable: dict[str, str]
    skipped: dict[str, int]
    n_new: int
    place: Path

    def find(self, photo: Path | str) -> int | None:
        """The number of the picture that is this very file, under whatever name; None where it is none of them."""
        wanted = file_identity(photo)
        return next((i for i, name in enumerate(self.files) if file_identity(self.folder / name) == wanted), None)

    def prepared(self, part: ModuleType, database: Prepared, parameters: dict) -> object | None:
        """What a re-ranker makes of the `descriptors` alone; None where there is no such thing.

        The neighbours of each picture, which cost most of it, are kept beside the index for the next search.
        """
        prepare = getattr(part, "prepare", lambda database, **parameters: None)
        known = inspect.signature(prepare).parameters.get("neighbours")
        if isinstance(getattr(known, "default", 0), int):  # a number, as in diffusion, or not there
            return prepare(database, **parameters)
        store = Store(self.place / "neighbours", {"format": "ssr-neighbours-2"})
        key = digest([hashlib.sha256(self.descriptors).hexdigest(), parameters["k"]])
        try:
            scores, ids = (store.arrays(name, [key])[0] for name in ("scores", "ids"))
        except (KeyError, OSError):  # not there, or another search has just put its own in its place
            scores, ids = knn(database, database, parameters["k"], exclude=np.arange(len(self.files)))  # (N, k) each
            with suppress(OSError):  # kept where that can be
                store.add({key: {"scores": scores, "ids": ids}})
                store.drop_others([key])
        return prepare(database, **parameters, neighbours=(scores, ids))


def index_folder(
    net: nn.Module, folder: Path | str, preprocess: Preprocess, index=None, progress=True, *, device="cpu",
    dtype=torch.float32, **options,
) -> Gallery:  # fmt: skip
    """Describe the pictures below `folder` that `index` does not know yet, and return all that are there now.

    `index`: a folder, by default `.ssr-index` in the gallery; each gallery, model and preprocessing has its own part of
    it. A picture counts as known by its `picture_key`; one that could not be described is tried again. A killed run
    goes on. `device`, `dtype`, `options`: as for `extract`. Raises as `list_pictures`; `OSError` where it cannot write.
    """
    folder = Path(folder)
    compute, made_by = descriptors_of(net, preprocess, device, dtype)
    made_by["gallery"] = os.path.realpath(folder)
    store = Store(Path(folder / ".ssr-index" if index is None else index, digest(made_by)[:16]), made_by)
    names, skipped = list_pictures(folder)
    pictures = {picture_key(folder / name): (folder / name, None) for name in names}
    named = dict(zip(pictures, names, strict=True))
    new = store.missing(pictures)
    try:
        if len(new) == len(pictures):  # else all that is new may be unreadable, and nothing be written
            check_writable(store.directory / "shard")
        unusable = fill(store, compute, pictures, preprocess, progress=progress, **options)
    except OSError as error:
        told = f"{error.strerror}; name another folder for the index (--index)"
        raise OSError(error.errno, told, str(store.directory)) from error
    keys = [key for key in pictures if key not in unusable]
    rows = np.array(store.arrays("descriptor", keys), np.float32).reshape(-1, net.descriptor_dim)
    unreadable = {named[key]: str(reason) for key, reason in unusable.items()}
    files = [named[key] for key in keys]
    return Gallery(folder, files, rows, unreadable, skipped, len(new) - len(unusable), store.directory)
