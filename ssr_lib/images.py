"""From picture files to the tensors a network sees: decode ahead, crop, resize, normalise, put together in batches.

Preprocessing moves mAP by up to ten points, so all of it is one record, which is stored beside every descriptor.
"""

import os
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Literal

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from pydantic import Field, PositiveFloat, PositiveInt
from pydantic.dataclasses import dataclass

from ssr_lib.decode import ImageError, load_image
from ssr_lib.files import STRICT

WAITING = 1 << 28  # float32 numbers (1 GB) that wait for others of their size: 80 pictures of 1024 x 1024 px
_OPENCV = {"area": cv2.INTER_AREA, "linear": cv2.INTER_LINEAR, "cubic": cv2.INTER_CUBIC}
_PILLOW = {name: Image.Resampling[name.upper()] for name in ("bilinear", "bicubic", "lanczos")}  # with a low-pass
OR_LIST = Field(strict=False)  # as JSON has it
Pictures = Mapping[str, tuple[Path, Sequence | None]]  # files and boxes (x0, y0, x1, y1) or None, by their keys


@dataclass(frozen=True, config=STRICT)
class Preprocess:
    """Everything between a picture file and the network, in order; `ValueError` names a field of no legal value."""

    exif_orientation: bool = True  # turn the picture as its camera noted; OpenCV does, Pillow does not
    crop: bool = True  # cut a query's box out of its picture; False: the whole picture, against the protocol
    box_rounding: Literal["truncate", "round"] = "truncate"  # a query box to whole pixels
    color_order: Literal["rgb", "bgr"] = "rgb"  # order of the channels, also of mean and std
    reduce: PositiveInt | None = None  # px: what has a longer side first gets this one
    reduce_box: Literal["absolute", "relative"] = "absolute"  # what `box_size` is to `size`
    size_rule: Literal["none", "longest", "fixed"] = "longest"  # longest side becomes `size`; fixed: size x size
    size: PositiveInt | None = 384  # px, at scale 1
    box_size: Literal["absolute", "relative"] = "absolute"  # longest: a crop gets `size`, or what its picture's would
    enlarge: bool = False  # longest: whether a smaller picture is blown up to `size`
    scales: Annotated[tuple[PositiveFloat, ...], OR_LIST, Field(min_length=1)] = (1.0,)  # one descriptor of each
    resize_dtype: Literal["uint8", "float32"] = "uint8"  # in one resize; float32: the scale after normalising
    resize_by: Literal["factor", "size"] = "factor"  # float32: sample on the grid of the factor, or of whole pixels
    antialias: bool = False  # float32: low-pass when shrinking
    interpolation_down: Literal["area", "linear", "cubic", "bilinear", "bicubic", "lanczos"] = "area"  # uint8
    interpolation_up: Literal["linear", "cubic"] = "linear"  # uint8; area, linear, cubic: OpenCV's, others: Pillow's
    mean: Annotated[tuple[float, float, float], OR_LIST] = (0.5, 0.5, 0.5)  # of pictures in [0, 1], in `color_order`
    std: Annotated[tuple[PositiveFloat, PositiveFloat, PositiveFloat], OR_LIST] = (0.5, 0.5, 0.5)
    normalize_scales: bool = True  # L2 of each scale's descriptor before they are joined
    join: Literal["mean", "max"] = "mean"  # over scales; L2 follows

    def __post_init__(self):
        if (self.size_rule == "none") != (self.size is None):
            raise ValueError(f"preprocess size: {self.size} does not go with size_rule {self.size_rule!r}")
        if self.join == "max" and not self.normalize_scales:
            raise ValueError("preprocess normalize_scales: False does not go with join 'max'")

    def to_dict(self) -> dict:
        """The record as JSON-able values."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}


_IMAGENET_MEAN = (0.485, 0.456, 0.406)  # RGB
_IMAGENET_STD = (0.229, 0.224, 0.225)
_CVNET = Preprocess(
    color_order="bgr", size_rule="none", size=None, scales=(0.7071, 1.0, 1.4142),
    mean=_IMAGENET_MEAN[::-1], std=_IMAGENET_STD[::-1],
)  # fmt: skip
PRESETS: dict[str, Preprocess] = {
    "lite": Preprocess(),  # tf_efficientnet_lite*: (x / 255 - 0.5) / 0.5
    "senet": _CVNET,  # Lee et al., CVPR 2023: as CVNet
    "cvnet": _CVNET,  # Lee et al., CVPR 2022
    # Shao et al., ICCV 2023: CVNet's tensors, resized after normalisation
    "superglobal": replace(_CVNET, resize_dtype="float32", resize_by="size", antialias=True, join="max"),
    "cirtorch": Preprocess(  # Radenović et al., TPAMI 2019
        exif_orientation=False, box_rounding="round", size=1024, box_size="relative",
        scales=(1.0, 2**0.5, 2**-0.5), resize_dtype="float32", interpolation_down="lanczos",
        mean=_IMAGENET_MEAN, std=_IMAGENET_STD,
    ),
}  # fmt: skip


def crop(image: np.ndarray, box, rounding: str = "truncate") -> np.ndarray:
    """The part of a picture (H, W, 3) inside `box` (x0, y0, x1, y1), made whole pixels by truncation or rounding.

    Raises `ImageError` where the box leaves the picture by more than 2 px or holds no pixel: it is another picture's.
    """
    height, width = image.shape[:2]
    x0, y0, x1, y1 = (int(v) if rounding == "truncate" else round(v) for v in box)
    part = image[max(y0, 0) : max(y1, 0), max(x0, 0) : max(x1, 0)]
    if min(x0, y0, width - x1, height - y1) < -2 or part.size == 0:
        raise ImageError(f"box {tuple(map(float, box))} does not lie in a picture of {width} x {height} px")
    return part


def to_tensors(image: np.ndarray, preprocess: Preprocess, box=None) -> list[torch.Tensor]:
    """What the network sees of a picture (H, W, 3) uint8 RGB: for each scale a normalised float32 (3, h, w)."""
    whole = max(image.shape[:2])
    if box is not None and preprocess.crop:
        image = crop(image, box, preprocess.box_rounding)
    if preprocess.color_order == "bgr":
        image = image[:, :, ::-1]
    if preprocess.reduce:
        before, how = max(image.shape[:2]), Preprocess(size=preprocess.reduce, box_size=preprocess.reduce_box)
        image = _resized(image, how, 1.0, whole)
        whole = whole * max(image.shape[:2]) / before
    if preprocess.resize_dtype == "uint8":
        return [_normalized(_resized(image, preprocess, scale, whole), preprocess) for scale in preprocess.scales]
    tensor = _normalized(_resized(image, preprocess, 1.0, whole), preprocess)
    return [_rescaled(tensor, scale, preprocess) for scale in preprocess.scales]


def _resized(image: np.ndarray, preprocess: Preprocess, scale: float, whole: float) -> np.ndarray:
    """Resize (H, W, 3) uint8 by rule and scale; `whole`: px of the longest side that the uncropped picture has now."""
    height, width = image.shape[:2]
    longest, size, factor = max(height, width), None, scale
    if preprocess.size_rule == "fixed":
        side = max(1, round(preprocess.size * scale))
        size = (side, side)
        factor = side / (height * width) ** 0.5
    elif preprocess.size_rule == "longest":
        limit = preprocess.size * longest // whole if preprocess.box_size == "relative" else preprocess.size
        factor *= max(limit, 1) / longest if preprocess.enlarge or limit < longest else 1.0
    if size is None and factor == 1.0:
        return image
    if factor < 1 and preprocess.interpolation_down in _PILLOW:
        method = _PILLOW[preprocess.interpolation_down]
        picture = Image.fromarray(np.ascontiguousarray(image))
        if size is not None:
            return np.asarray(picture.resize(size, method))
        picture.thumbnail([max(1, round(factor * longest))] * 2, method, reducing_gap=None)
        return np.asarray(picture)
    if size is None and round(min(height, width) * factor) < 1:  # a line of a few pixels
        size = (max(1, round(width * factor)), max(1, round(height * factor)))
    interpolation = _OPENCV[preprocess.interpolation_down if factor < 1 else preprocess.interpolation_up]
    return cv2.resize(image, size, fx=factor, fy=factor, interpolation=interpolation)  # (round(fH), round(fW), 3)


def _normalized(image: np.ndarray, preprocess: Preprocess) -> torch.Tensor:
    tensor = np.ascontiguousarray(image.transpose(2, 0, 1), dtype=np.float32)  # (3, H, W)
    tensor /= 255.0
    tensor -= np.float32(preprocess.mean).reshape(3, 1, 1)
    tensor /= np.float32(preprocess.std).reshape(3, 1, 1)
    return torch.from_numpy(tensor)


def _rescaled(tensor: torch.Tensor, scale: float, preprocess: Preprocess) -> torch.Tensor:
    """Resize a normalised (3, H, W) bilinearly to the floor of its sides times `scale`."""
    if scale == 1.0:
        return tensor
    options = {"mode": "bilinear", "align_corners": False, "antialias": preprocess.antialias}
    if preprocess.resize_by == "factor" and min(tensor.shape[1:]) * scale >= 1:
        return F.interpolate(tensor[None], scale_factor=scale, **options)[0]
    size = [max(1, int(side * scale)) for side in tensor.shape[1:]]
    return F.interpolate(tensor[None], size=size, **options)[0]


def load_tensors(path: Path | str, preprocess: Preprocess, box=None) -> list[torch.Tensor]:
    """A file's normalised float32 tensors (3, H, W), one for each scale; raises `ImageError` naming the file."""
    image = load_image(path, exif_orientation=preprocess.exif_orientation)
    try:
        return to_tensors(image, preprocess, box)
    except ValueError as error:  # also of a box that is not four finite numbers
        raise ImageError(f"{path}: {error}") from error


def load_ahead(pictures: Pictures, preprocess: Preprocess, workers: int | None = None) -> Iterator[tuple[str, Future]]:
    """Yield each picture's key and what will be its `load_tensors`, in order; two a thread are decoded early.

    `workers`: threads, by default one for each core, 16 at most (decoders and OpenCV let other threads run).
    """
    workers = workers or min(os.cpu_count() or 1, 16)
    pool, waiting = ThreadPoolExecutor(workers), deque()
    try:
        for key, (path, box) in pictures.items():
            waiting.append((key, pool.submit(load_tensors, path, preprocess, box)))
            if len(waiting) > 2 * workers:
                yield waiting.popleft()
        yield from waiting
    finally:  # also where the caller stopped early: do not decode what nobody will see
        pool.shutdown(cancel_futures=True)


def batches_of_one_size(
    loaded: Iterable[tuple[str, Future]], batch_size: int, unusable: dict[str, ImageError]
) -> Iterator[dict[str, list[torch.Tensor]]]:
    """Yield the tensors of `batch_size` pictures or fewer by their keys, each time of pictures of one size.

    `unusable` gets the errors of the pictures that could not be loaded, by their keys.
    """
    groups: dict[tuple, dict[str, list[torch.Tensor]]] = {}
    for key, future in loaded:
        try:
            tensors = future.result()
        except ImageError as error:
            unusable[key] = error
            continue
        shape = tuple(tensor.shape for tensor in tensors)
        groups.setdefault(shape, {})[key] = tensors
        sizes = {shape: len(group) * sum(scale.numel() for scale in shape) for shape, group in groups.items()}
        if len(groups[shape]) == batch_size:
            yield groups.pop(shape)
        elif sum(sizes.values()) > WAITING:  # the largest group leaves, not full
            yield groups.pop(max(sizes, key=sizes.get))
    yield from groups.values()
