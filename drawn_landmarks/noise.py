"""Random fields with the spectra of natural textures; every asset here is the same for every benchmark."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np

ASSETS = 20250101  # the seed of what no landmark owns: noise, trees, cloud fields
FIELDS = 4  # how many different fields of one kind there are


@lru_cache(maxsize=8)
def _amplitudes(size: int, beta: float) -> np.ndarray:
    """What frequencies of a field are multiplied with, (size, size / 2 + 1): 1 / f^(beta / 2), and 0 for the mean."""
    f = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None])
    f[0, 0] = 1.0
    amplitudes = f ** (-beta / 2)
    amplitudes[0, 0] = 0.0
    return amplitudes


def spectral_noise(rng: np.random.Generator, size: int, beta: float) -> np.ndarray:
    """A periodic random field (size, size) float32 in [0, 1], power spectrum 1 / f^beta, median 0.5.

    beta near 1 is rough (plaster, leaves), near 3 smooth (clouds). Made by shaping white noise in Fourier space.
    """
    spectrum = np.fft.rfft2(rng.standard_normal((size, size))) * _amplitudes(size, beta)
    field = np.fft.irfft2(spectrum, s=(size, size))
    return np.clip(0.5 + field / (5.0 * field.std()), 0, 1).astype(np.float32)


@lru_cache(maxsize=64)
def field(beta: float, index: int) -> np.ndarray:
    """Stored field number `index` of roughness `beta`: (512, 512) float32 in [0, 1], read only."""
    rng = np.random.default_rng([ASSETS, int(beta * 100), index])
    stored = spectral_noise(rng, 512, beta)
    stored.setflags(write=False)
    return stored


@lru_cache(maxsize=16)
def _repeated(beta: float, index: int) -> np.ndarray:
    """A stored field beside and below itself, (1024, 1024), so that a cut may begin anywhere."""
    return np.tile(field(beta, index), (2, 2))


def patch(rng: np.random.Generator, shape: tuple[int, int], beta: float, scale: float = 1.0) -> np.ndarray:
    """A random cut of a stored field, `shape` float32; `scale` > 1 enlarges its features, < 1 shrinks them."""
    height, width = shape
    source = _repeated(beta, int(rng.integers(FIELDS)))
    rows = min(512, max(2, round(height / scale)))
    columns = min(512, max(2, round(width / scale)))
    y, x = int(rng.integers(512)), int(rng.integers(512))
    cut = source[y : y + rows, x : x + columns]
    if (rows, columns) == (height, width):
        return cut
    return cv2.resize(cut, (width, height), interpolation=cv2.INTER_LINEAR)


def halvings(image: np.ndarray) -> tuple[np.ndarray, ...]:
    """An image and its successive halvings down to about 8 pixels."""
    images = [image]
    while min(images[-1].shape[:2]) >= 16:
        h, w = images[-1].shape[:2]
        images.append(cv2.resize(images[-1], (w // 2, h // 2), interpolation=cv2.INTER_AREA))
    return tuple(images)
