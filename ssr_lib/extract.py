"""Pictures to arrays on disk: descriptors of a whole network, or the maps that its frozen part gives to heads."""

import ctypes
import secrets
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from ssr_lib.benchmark import Benchmark
from ssr_lib.datasets.folder import listed
from ssr_lib.decode import ImageError
from ssr_lib.files import code_of, digest, hash_file, locked, one_line
from ssr_lib.images import Pictures, Preprocess, batches_of_one_size, load_ahead
from ssr_lib.network import RetrievalNet, weights_digest
from ssr_lib.pooling import SmallMapError, combine_scales
from ssr_lib.store import SHARD, Maps, Store, picture_key

Arrays = dict[str, np.ndarray]
Compute = Callable[[Sequence], Arrays]  # B pictures (3, H, W) at each scale → arrays by name, first axis B


def pick_device(name: str) -> torch.device:
    """The device `name`, as "cuda:1"; "auto" is a GPU where there is one. Raises `ValueError` where there is not."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    with one_line(f"device {name}"):
        made = torch.empty(1, device=name)
        made.cpu()  # "meta" makes tensors and holds none
    return made.device


def fill(
    store, compute: Compute, pictures: Pictures, preprocess: Preprocess, *, batch_size=16, workers=None, progress=True
) -> dict[str, ImageError]:
    """Add to a `Store`, `SHARD` at a time, the pictures that it lacks; return why some cannot be used, by their keys.

    Added are the arrays that `compute` makes, and "content", the SHA-256 of a picture's bytes.
    """
    missing = {key: pictures[key] for key in store.missing(pictures)}
    bar = tqdm(load_ahead(missing, preprocess, workers), total=len(missing), unit="image", disable=not progress)
    loaded, unusable = iter(bar), {}  # why pictures cannot be used, by their keys
    for _ in range(0, len(missing), SHARD):
        usable = {}
        for batch in batches_of_one_size(islice(loaded, SHARD), batch_size, unusable):
            try:
                computed = compute([*zip(*batch.values(), strict=True)])
            except SmallMapError as error:
                unusable |= {key: ImageError(f"{missing[key][0]}: {error}") for key in batch}
                continue
            for row, key in enumerate(batch):
                arrays = {name: rows[row] for name, rows in computed.items()}
                try:
                    usable[key] = _checked(arrays, key, *missing[key])
                except ImageError as error:
                    unusable[key] = error
        if usable:
            store.add(usable)
        with suppress(OSError, AttributeError):  # another C library
            ctypes.CDLL(None).malloc_trim(0)  # glibc keeps blocks of every size of picture, gigabytes in the end
    if len(unusable) < len(missing):
        store.drop_others(pictures)
    return unusable


def _checked(arrays: Arrays, key: str, path: Path, box) -> Arrays:
    """The arrays with the content; `ImageError` where they say nothing, `ValueError` where they are not finite."""
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise ValueError(f"{path}: its {name} is not finite in {array.dtype}; see the weights")
        if array.min() == array.max():  # GeM makes a small constant of a map of zeros
            raise ImageError(f"{path}: its {name} is the same number everywhere, so the network sees nothing in it")
    changed = picture_key(path, box) != key  # since this run began: then its name must be equal to no other
    content = secrets.token_bytes(32) if changed else bytes.fromhex(hash_file(path))
    return {**arrays, "content": np.frombuffer(content, np.uint8)}


def _stored(compute, made_by, files, preprocess, directory, root=".", boxes=None, **options) -> tuple[Store, list[str]]:
    """A store of what `compute` makes of some pictures, and their keys; at the end `ImageError` with those unusable."""
    boxes = [None] * len(files) if boxes is None else boxes
    asked = [(Path(root, file), box) for file, box in zip(files, boxes, strict=True)]
    keys = [picture_key(path, box) for path, box in asked]
    names = digest([Path(file).as_posix() for file in files])
    store = Store(directory, {**made_by, "files": names, "boxes": digest(boxes)})
    if store.missing(keys):
        with locked(directory):
            for left in Path(directory).glob(".shard-*.part"):  # what killed processes had half written
                left.unlink()
            unusable = fill(store, compute, dict(zip(keys, asked, strict=True)), preprocess, **options)
        if unusable:
            raise ImageError(listed(sorted(map(str, unusable.values())), "of the pictures cannot be used"))
    return store, keys


def descriptors_of(net: nn.Module, preprocess: Preprocess, device="cpu", dtype=torch.float32) -> tuple[Compute, dict]:
    """From B pictures at each scale to "descriptor" (B, D) float32, L2-normalised, and the record of what that needs.

    `net`: images (B, 3, H, W) → (B, D), with a JSON-able `net.config`; it is moved to `device` and left in eval mode.
    Scales are joined as `preprocess` says; where that is without normalisation, `net` takes `normalize=False`, as
    `RetrievalNet` does. `dtype`: of autocast.
    """
    device = torch.device(device)
    net.to(device).eval()
    options = {} if preprocess.normalize_scales else {"normalize": False}
    how = {"method": "mean" if preprocess.join == "mean" else "scale-gem", "normalize": preprocess.normalize_scales}

    @torch.inference_mode()
    def compute(scales: Sequence[Sequence[Tensor]]) -> Arrays:
        batches = (torch.stack([x.to(device) for x in images]) for images in scales)  # a GPU stacks faster
        with torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32):
            rows = [net(images, **options) for images in batches]
        return {"descriptor": combine_scales(torch.stack(rows).float(), **how).cpu().numpy()}  # (S, B, D) → (B, D)

    made_by = {"format": "ssr-descriptors-3", "net": net.config, "weights": weights_digest(net)}
    code = {"head code": code_of(type(net.head), **net.config["options"])} if hasattr(net, "head") else {}
    return compute, {**made_by, **code, "dtype": str(dtype), "preprocess": preprocess.to_dict()}


def describe(net: nn.Module, files: Sequence, preprocess: Preprocess, **options) -> np.ndarray:
    """Descriptors (N, D) float32 of a few files, not kept. Options and errors are those of `extract`."""
    with TemporaryDirectory() as place:
        return extract(net, files, preprocess, place, progress=False, **options)


def extract(
    net: nn.Module, files: Sequence, preprocess: Preprocess, directory, device="cpu", dtype=torch.float32, **options
) -> np.ndarray:
    """Describe N pictures into `directory` and return their descriptors (N, D) float32, L2-normalised.

    `net`, `dtype`: as for `descriptors_of`. `options`: `root` of the files, `boxes` (for each file a crop
    (x0, y0, x1, y1) in pixels, or None), `batch_size`, `workers` (decoding threads), `progress`. An interrupted run
    goes on where it stopped, at most `SHARD` pictures earlier. Raises `ImageError` with all pictures that cannot be
    used, after the others are stored; `ValueError` for a `directory` of another model, preprocessing or list of files,
    and for a descriptor that is not finite; `FolderBusyError` where another process is writing there.
    """
    compute, made_by = descriptors_of(net, preprocess, device, dtype)
    store, keys = _stored(compute, made_by, files, preprocess, directory, **options)
    return np.stack(store.arrays("descriptor", keys))


def extract_benchmark(
    net: nn.Module, benchmark: Benchmark, preprocess: Preprocess, directory: Path | str, **options
) -> tuple[np.ndarray, np.ndarray]:
    """Descriptors of a benchmark: queries (Q, D) and database (N, D), float32, below `directory`.

    Queries are cropped to their boxes. Where every query is a whole database image, its row is taken from there.
    `options` and errors: as for `extract`.
    """
    options["root"] = benchmark.root
    database = extract(net, benchmark.database, preprocess, Path(directory, "database"), **options)
    if min(benchmark.query_ids, default=-1) >= 0 and all(box is None for box in benchmark.boxes):
        return database[np.asarray(benchmark.query_ids)], database
    options["boxes"] = benchmark.boxes
    return extract(net, benchmark.queries, preprocess, Path(directory, "queries"), **options), database


def compute_maps(net: RetrievalNet, files: Sequence, preprocess: Preprocess, directory: Path | str, **options) -> Maps:
    """Maps of N pictures by the frozen part of `net`, on the device that it is on, stored in `directory`.

    Stored are the maps that the network needs: end to end `mid` only. `options`: as for `extract`. Raises `ValueError`
    where an activation does not fit float16 or `preprocess` has several scales, and otherwise as `extract`.
    """
    if len(preprocess.scales) != 1:
        raise ValueError(f"maps are of one scale; preprocess has scales {preprocess.scales}")
    device = next(net.parameters()).device

    @torch.inference_mode()
    def compute(scales: Sequence[Sequence[Tensor]]) -> Arrays:
        maps = net.maps(torch.stack([x.to(device) for x in scales[0]]).to(memory_format=torch.channels_last))
        named = {name: x for name, x in zip(("mid", "last"), maps, strict=True) if x is not None}
        return {name: x.permute(0, 2, 3, 1).half().cpu().numpy() for name, x in named.items()}  # (B, H, W, C)

    names = list(compute([torch.zeros(1, 3, 64, 64)]))
    pieces = [net.backbone.mid] if net.end_to_end else [net.backbone.mid, net.backbone.last]
    made_by = {"format": "ssr-maps-4", "backbone": net.backbone.name, "maps": names, "relup": net.config["relup"]}
    made_by |= {"weights": [weights_digest(piece) for piece in pieces], "preprocess": preprocess.to_dict()}
    store, keys = _stored(compute, made_by, files, preprocess, directory, **options)
    maps = {name: store.arrays(name, keys) for name in names}
    contents = [content.tobytes().hex() for content in store.arrays("content", keys)]
    return Maps(maps.get("mid"), maps.get("last"), digest([store.made_by, contents]), preprocess.to_dict())


def describe_maps(net: RetrievalNet, maps: Maps) -> np.ndarray:
    """Descriptors (N, D) float32, L2-normalised, of stored maps: `net.from_maps` in eval mode."""
    return _rows_of(net, net.from_maps, maps)


def pooled_features(net: RetrievalNet, maps: Maps) -> np.ndarray:
    """What the whitening sees, (N, C) float32, of stored maps: `net.pooled` in eval mode."""
    return _rows_of(net, net.pooled, maps)


@torch.inference_mode()
def _rows_of(net: RetrievalNet, describe: Callable[..., Tensor], maps: Maps) -> np.ndarray:
    training, rows = net.training, {}
    device = next(net.parameters()).device
    net.eval()
    for ids in maps.batches(128):
        rows |= zip(ids, np.array(describe(*maps.batch(ids, device)).float().cpu()), strict=True)  # copied
    net.train(training)
    return np.stack([rows[i] for i in range(len(maps))])
