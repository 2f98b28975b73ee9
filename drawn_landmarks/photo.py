"""From the light that reaches the lens to the file: exposure, colour, blur, noise, JPEG."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from .chance import weighted
from .noise import ASSETS

GRAIN = 509  # pixels
LEVELS = np.linspace(0, 1, 256)
LUMINANCE = np.full((3, 3), 1.0) * np.array([0.299, 0.587, 0.114])


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
    angle, length = rng.uniform(0, np.pi), rng.uniform(1.5, 4.0)
    if not shaken:
        length = 0.0
    return Photo(
        exposure=float(rng.normal(0.0, 0.28)),
        warmth=float(rng.normal(0, 0.032)),
        tint=float(rng.normal(0, 0.010)),
        saturation=float(rng.uniform(0.72, 1.06)),
        contrast=float(rng.uniform(0.88, 1.12)),
        vignette=float(rng.uniform(0, 0.25)),
        blur=weighted(rng, {0.0: 0.5, 0.45: 0.3, 0.8: 0.16, 1.5: 0.04}),
        motion=(float(length * np.cos(angle)), float(length * np.sin(angle))),
        coarse=weighted(rng, {1.0: 0.86, 0.65: 0.10, 0.5: 0.04}),
        noise=float(rng.uniform(0.5, 3.0) if not dark else rng.uniform(1.5, 4.5)),
        quality=weighted(rng, {92: 0.25, 85: 0.3, 75: 0.25, 60: 0.14, 40: 0.06}),
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
    if photo.bloom:
        image = _spill(image, photo.bloom)
    if photo.blur:
        image = cv2.GaussianBlur(image, (0, 0), photo.blur)
    if photo.motion != (0.0, 0.0):
        image = cv2.filter2D(image, -1, _shake(photo.motion))
    image = cv2.merge([cv2.LUT(plane, curve) for plane, curve in zip(cv2.split(image), _curves(photo), strict=True)])
    saturation = 0.0 if photo.grey else photo.saturation
    image = cv2.transform(image, saturation * np.eye(3) + (1 - saturation) * LUMINANCE)
    if photo.vignette > 0.05:
        image = cv2.multiply(image, _vignette(size, round(photo.vignette * 20)), scale=1 / 255)
    return _add_grain(image, photo, rng)


def _curves(photo: Photo) -> np.ndarray:
    """What exposure, white balance and contrast make of each level of each channel, (3, 256) uint8."""
    gain = 2 ** (photo.exposure / 2.2) * np.array([1 + photo.warmth, 1 - photo.tint, 1 - photo.warmth])
    levels = np.minimum(gain[:, None] * LEVELS, 1)
    curve = 0.5 + (levels - 0.5) * photo.contrast
    table = 255 * (0.65 * curve + 0.35 * (3 * levels**2 - 2 * levels**3))
    return table.clip(0, 255).astype(np.uint8)


def _add_grain(image: np.ndarray, photo: Photo, rng: np.random.Generator) -> np.ndarray:
    """The picture (size, size, 3) with sensor noise."""
    number = int(rng.integers(2))
    size = len(image)
    reach = -(-size // GRAIN)  # repetitions of the stored noise
    room = reach * GRAIN - size + 1
    y, x = int(rng.integers(room)), int(rng.integers(room))
    lighter, darker = _grain(number, photo.grey, reach)
    there = (slice(y, y + size), slice(x, x + size))
    image = cv2.add(image, cv2.convertScaleAbs(lighter[there], alpha=photo.noise / 16))
    return cv2.subtract(image, cv2.convertScaleAbs(darker[there], alpha=photo.noise / 16))


@lru_cache(maxsize=4)
def _grain(number: int, grey: bool, reach: int) -> tuple[np.ndarray, np.ndarray]:
    """Sensor noise, in sixteenths of a deviation, mostly of lightness: what lightens, and what darkens, uint8."""
    light, colour = _white_noise()
    noise = np.round(16 * (0.9 * light[number] + (0.0 if grey else 0.45) * colour[number]))
    noise = np.tile(noise, (reach, reach, 1))
    return np.maximum(noise, 0).astype(np.uint8), np.maximum(-noise, 0).astype(np.uint8)


@lru_cache(maxsize=1)
def _white_noise() -> tuple[np.ndarray, np.ndarray]:
    """Two fields of lightness (2, GRAIN, GRAIN, 1) and of colour (2, GRAIN, GRAIN, 3)."""
    rng = np.random.default_rng([ASSETS, 5])
    return rng.standard_normal((2, GRAIN, GRAIN, 1)), rng.standard_normal((2, GRAIN, GRAIN, 3))


def _spill(image: np.ndarray, amount: float) -> np.ndarray:
    """The picture with the light of its brightest places spread around them."""
    h, w = image.shape[:2]
    bright = cv2.resize(cv2.subtract(image, (110, 110, 110, 0)), (w // 4, h // 4), interpolation=cv2.INTER_AREA)
    spread = cv2.GaussianBlur(bright, (0, 0), 1.6) + cv2.GaussianBlur(bright, (0, 0), 5.0)
    spread = cv2.resize(spread, (w, h), interpolation=cv2.INTER_LINEAR)
    return cv2.addWeighted(image, 1.0, spread, 0.9 * amount, 0.0)


def _shake(motion: tuple[float, float]) -> np.ndarray:
    """The path of a shaken camera as a kernel."""
    reach = int(np.ceil(np.hypot(*motion) / 2)) + 1
    kernel = np.zeros((2 * reach + 1, 2 * reach + 1), np.float32)
    end = np.array(motion) / 2
    points = [tuple(round((reach + s * e) * 16) for e in end) for s in (-1, 1)]
    cv2.line(kernel, points[0], points[1], 1.0, 1, cv2.LINE_8, 4)
    return kernel / kernel.sum()


@lru_cache(maxsize=8)
def _vignette(size: int, strength: int) -> np.ndarray:
    """What the picture is multiplied with, (size, size, 3) uint8, 255 for 1; `strength` in twentieths."""
    axis = np.linspace(-1, 1, size)
    radius = (axis[:, None] ** 2 + axis[None] ** 2) / 2
    falloff = 255 * (1 - strength / 20 * radius)
    return np.repeat(falloff[..., None], 3, 2).astype(np.uint8)


def to_grey(image: np.ndarray) -> np.ndarray:
    """The picture (h, w, 3) uint8 without colour."""
    return cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
