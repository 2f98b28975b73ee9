"""From the light that reaches the lens to the file: exposure, colour, blur, noise, JPEG."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from .noise import ASSETS

GRAIN = 509  # pixels


@dataclass(frozen=True)
class Photo:
    """How a view was taken and stored."""

    exposure: float  # stops
    warmth: float  # white balance: > 0 red, < 0 blue
    tint: float  # > 0 magenta, < 0 green
    saturation: float
    contrast: float
    vignette: float
    blur: float  # standard deviation, pixels of the final image
    motion: tuple[float, float]  # shake, pixels
    coarse: float  # resolution kept: 1 all, 0.5 half
    noise: float  # standard deviation, sRGB units
    quality: int  # JPEG
    grey: bool
    bloom: float  # how much bright lamps spill over


def draw_photo(rng: np.random.Generator, kind: str) -> Photo:
    """Random camera settings for light of a kind."""
    dark = kind in ("dusk", "night")
    shaken = rng.random() < (0.2 if dark else 0.07)
    angle, length = rng.uniform(0, np.pi), rng.uniform(1.5, 4.0) * shaken
    return Photo(
        exposure=float(rng.normal(0.0, 0.28)),
        warmth=float(rng.normal(0, 0.032)),
        tint=float(rng.normal(0, 0.010)),
        saturation=float(rng.uniform(0.72, 1.06)),
        contrast=float(rng.uniform(0.88, 1.12)),
        vignette=float(rng.uniform(0, 0.25)),
        blur=float(rng.choice([0.0, 0.45, 0.8, 1.5], p=[0.5, 0.3, 0.16, 0.04])),
        motion=(float(length * np.cos(angle)), float(length * np.sin(angle))),
        coarse=float(rng.choice([1.0, 0.65, 0.5], p=[0.86, 0.10, 0.04])),
        noise=float(rng.uniform(0.5, 3.0) if not dark else rng.uniform(1.5, 4.5)),
        quality=int(rng.choice([92, 85, 75, 60, 40], p=[0.25, 0.3, 0.25, 0.14, 0.06])),
        grey=bool(rng.random() < 0.04),
        bloom=float(rng.uniform(0.3, 0.9)) if dark else 0.0,
    )


def develop(image: np.ndarray, photo: Photo, size: int, rng: np.random.Generator) -> np.ndarray:
    """The finished picture (size, size, 3) uint8 RGB from a rendered one of any size."""
    image = cv2.GaussianBlur(image, (3, 3), 0)  # the lens: no edge is sharper than a pixel
    if photo.coarse < 1:
        few = round(size * photo.coarse)
        image = cv2.resize(image, (few, few), interpolation=cv2.INTER_AREA)
        image = cv2.resize(image, (size, size), interpolation=cv2.INTER_LINEAR)
    else:
        image = cv2.resize(image, (size, size), interpolation=cv2.INTER_LINEAR)
    if photo.bloom:
        image = _spill(image, photo.bloom)
    if photo.blur:
        image = cv2.GaussianBlur(image, (0, 0), photo.blur)
    if photo.motion != (0.0, 0.0):
        image = cv2.filter2D(image, -1, _shake(photo.motion))
    gain = 2 ** (photo.exposure / 2.2) * np.array([1 + photo.warmth, 1 - photo.tint, 1 - photo.warmth])
    levels = np.clip(np.linspace(0, 1, 256)[:, None] * gain, 0, 1)
    curve = 0.5 + (levels - 0.5) * photo.contrast
    table = np.clip(255 * (0.65 * curve + 0.35 * (3 * levels**2 - 2 * levels**3)), 0, 255)
    image = cv2.LUT(image, table.astype(np.uint8)[None])
    saturation = 0.0 if photo.grey else photo.saturation
    mean = np.full((3, 3), 1.0) * np.array([0.299, 0.587, 0.114])
    image = cv2.transform(image, saturation * np.eye(3) + (1 - saturation) * mean)
    if photo.vignette > 0.05:
        image = cv2.multiply(image, _vignette(size, round(photo.vignette * 20)), scale=1 / 255)
    grain = _grain(photo.grey)[rng.integers(2)]
    if size > GRAIN:
        grain = np.tile(grain, (-(-size // GRAIN), -(-size // GRAIN), 1))
    y, x = rng.integers(0, len(grain) - size + 1, 2)
    grain = np.ascontiguousarray(grain[y : y + size, x : x + size])
    return cv2.add(image, cv2.multiply(grain, (photo.noise / 16,) * 4, dtype=cv2.CV_16S), dtype=cv2.CV_8U)


@lru_cache(maxsize=2)
def _grain(grey: bool) -> np.ndarray:
    """Sensor noise, in sixteenths of a standard deviation, mostly of lightness: (2, GRAIN, GRAIN, 3) int16."""
    rng = np.random.default_rng([ASSETS, 5])
    light, colour = rng.standard_normal((2, GRAIN, GRAIN, 1)), rng.standard_normal((2, GRAIN, GRAIN, 3))
    return np.round(16 * (0.9 * light + (0.0 if grey else 0.45) * colour)).astype(np.int16)


def _spill(image: np.ndarray, amount: float) -> np.ndarray:
    """The picture with the light of its brightest places spread around them."""
    h, w = image.shape[:2]
    bright = cv2.resize(cv2.subtract(image, (110, 110, 110, 0)), (w // 4, h // 4), interpolation=cv2.INTER_AREA)
    wide = cv2.resize(
        cv2.GaussianBlur(bright, (0, 0), 1.6) + cv2.GaussianBlur(bright, (0, 0), 5.0),
        (w, h),
        interpolation=cv2.INTER_LINEAR,
    )
    return cv2.addWeighted(image, 1.0, wide, 0.9 * amount, 0.0)


def _shake(motion: tuple[float, float]) -> np.ndarray:
    reach = int(np.ceil(np.hypot(*motion) / 2)) + 1
    kernel = np.zeros((2 * reach + 1, 2 * reach + 1), np.float32)
    end = np.array(motion) / 2
    points = [tuple(round((reach + s * e) * 16) for e in end) for s in (-1, 1)]
    cv2.line(kernel, points[0], points[1], 1.0, 1, cv2.LINE_8, 4)
    return kernel / kernel.sum()


def _vignette(size: int, strength: int) -> np.ndarray:
    axis = np.linspace(-1, 1, size)
    radius = (axis[:, None] ** 2 + axis[None] ** 2) / 2
    falloff = 255 * (1 - strength / 20 * radius)
    return np.repeat(falloff[..., None], 3, 2).astype(np.uint8)


def to_grey(image: np.ndarray) -> np.ndarray:
    """The picture (h, w, 3) uint8 without colour."""
    return cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
