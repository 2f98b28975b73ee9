"""The light of a photograph: sun, sky and lamps, and the sky's own picture."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import cv2
import numpy as np

from . import noise
from .camera import Camera, unit
from .chance import pick


@dataclass(frozen=True)
class Light:
    """Illumination in linear units in which a white card in full light is about 0.9."""

    kind: str  # sun, haze, cloud, golden, dusk, night
    towards: np.ndarray  # (3,) unit vector to the sun, or from below to the flood lights of a night
    direct: np.ndarray  # (3,) RGB of sun or flood lights
    sky: np.ndarray  # (3,) RGB from above
    ground: np.ndarray  # (3,) RGB from below
    lit: float  # share of windows with a lamp behind
    reflection: np.ndarray  # (3,) RGB, sRGB units: what window glass mirrors
    haze: np.ndarray  # (3,) RGB, sRGB units: the colour of distance
    visibility: float  # metres
    _incident: dict[bytes, Incident] = field(default_factory=dict, repr=False, compare=False)

    @cached_property
    def sunny(self) -> bool:
        """Whether there is a sun, or flood lights, to cast shadows."""
        return bool(self.direct.max() > 0)

    def ambient(self, normal: np.ndarray) -> np.ndarray:
        """Diffuse light (3,) on a surface of this normal."""
        up = 0.5 + 0.5 * float(normal[1])
        return self.sky * up + self.ground * (1 - up)

    def incident(self, normal: np.ndarray) -> Incident:
        """What falls on a surface of this normal where nothing shades it."""
        key = normal.tobytes()
        if key not in self._incident:
            ambient = self.ambient(normal)
            facing = float(normal @ self.towards)
            gain = np.sqrt(ambient + self.direct * max(0.0, facing))
            self._incident[key] = Incident(ambient, facing, gain)
        return self._incident[key]


class Incident(NamedTuple):
    """Light on a surface. Textures hold the square root of reflectance, so they are multiplied with that of light."""

    ambient: np.ndarray  # (3,)
    facing: float  # cosine of the angle between its normal and the sun
    gain: np.ndarray  # (3,): what a texture is multiplied with


SKIES = {  # zenith and horizon, sRGB
    "sun": ((92, 136, 194), (196, 214, 228)),
    "haze": ((152, 178, 204), (216, 220, 220)),
    "cloud": ((178, 184, 190), (214, 216, 216)),
    "golden": ((112, 142, 182), (240, 208, 164)),
    "dusk": ((62, 84, 130), (190, 170, 164)),
    "night": ((15, 19, 34), (60, 52, 50)),
}


def draw_light(rng: np.random.Generator, kind: str) -> Light:
    """Random light of one kind (a key of `SKIES`)."""
    azimuth = rng.uniform(-1.9, 1.9)  # from the front's normal; beyond a quarter turn the front is in shade
    elevation = {"golden": rng.uniform(0.10, 0.28)}.get(kind, rng.uniform(0.45, 1.05))
    towards = np.array([np.sin(azimuth) * np.cos(elevation), np.sin(elevation), np.cos(azimuth) * np.cos(elevation)])
    direct, sky, lit = {
        "sun": ((0.92, 0.86, 0.76), (0.26, 0.31, 0.39), 0.0),
        "haze": ((0.48, 0.45, 0.41), (0.46, 0.49, 0.53), 0.0),
        "cloud": ((0.0, 0.0, 0.0), (0.92, 0.94, 0.97), 0.04),
        "golden": ((1.02, 0.68, 0.38), (0.28, 0.30, 0.38), 0.02),
        "dusk": ((0.0, 0.0, 0.0), (0.34, 0.37, 0.46), 0.28),
        "night": ((0.62, 0.46, 0.27), (0.07, 0.075, 0.10), 0.30),
    }[kind]
    direct, sky = np.array(direct) * rng.uniform(0.85, 1.1), np.array(sky) * rng.uniform(0.85, 1.15)
    if kind == "night":
        towards = unit((rng.uniform(-0.5, 0.5), -0.75, 0.7))
        direct = direct * rng.uniform(0.6, 1.4) * np.array([1.0, rng.uniform(0.9, 1.15), rng.uniform(0.8, 1.6)])
    ground = 0.42 * sky + 0.03 if kind == "night" else 0.42 * (sky + direct * max(0.0, towards[1]))
    zenith, horizon = (np.array(c, float) for c in SKIES[kind])
    return Light(
        kind=kind,
        towards=towards,
        direct=direct,
        sky=sky,
        ground=ground,
        lit=lit * rng.uniform(0.5, 1.5),
        reflection=(0.45 * zenith + 0.55 * horizon) * rng.uniform(0.5, 0.9),
        haze=horizon,
        visibility=float(rng.uniform(250, 900) if kind != "haze" else rng.uniform(120, 300)),
    )


def paint_sky(rng: np.random.Generator, camera: Camera, light: Light) -> np.ndarray:
    """The sky (size, size, 3) uint8: a gradient to the horizon, clouds that grow smaller towards it."""
    size = camera.size
    zenith, horizon = (np.array(c, float) for c in SKIES[light.kind])
    zenith = zenith * rng.uniform(0.88, 1.12) + rng.normal(0, 4, 3)
    small = size // 3
    rows = (np.arange(small) * (size / small) - camera.horizon()) / camera.focal
    angle = np.maximum(-rows, 0.012).astype(np.float32)[:, None]  # tangent of the height above the horizon
    blend = np.clip(angle / 0.9, 0, 1) ** 0.6
    planes = [np.repeat((1 - blend) * low + blend * high, small, 1) for low, high in _pairs(horizon, zenith)]
    if light.kind in ("golden", "dusk"):
        side = np.linspace(0.5 - 0.5 * light.towards[0], 0.5 + 0.5 * light.towards[0], small, dtype=np.float32)
        glow = np.exp(-angle / 0.22) * side[None] * 0.7
        warm = [255, 196, 120] if light.kind == "golden" else [228, 164, 126]
        planes = [plane + glow * (np.float32(tone) - plane) for plane, tone in zip(planes, warm, strict=True)]
    sky = cv2.convertScaleAbs(cv2.merge(_clouds(rng, planes, angle, light)))
    return cv2.resize(sky, (size, size), interpolation=cv2.INTER_CUBIC)


def _pairs(first, second) -> list[tuple[np.float32, np.float32]]:
    """The channels of two colours."""
    return list(zip(np.float32(first), np.float32(second), strict=True))


CLOUDS = {  # the bright and the dark side, sRGB
    "sun": ((252, 251, 248), (198, 204, 214)),
    "haze": ((236, 236, 234), (204, 208, 212)),
    "cloud": ((226, 228, 230), (158, 164, 172)),
    "golden": ((255, 214, 168), (166, 138, 142)),
    "dusk": ((172, 138, 140), (86, 88, 116)),
    "night": ((58, 52, 54), (34, 34, 42)),
}


def _clouds(rng, planes: list[np.ndarray], angle: np.ndarray, light: Light) -> list[np.ndarray]:
    """The planes (small, small) of a sky, red, green and blue, with clouds before it."""
    small = len(angle)
    clear = pick(rng, (0.0, 0.25, 0.42))  # drawn for every kind: what follows in this stream stays as it is
    cover = {"sun": clear, "haze": 0.45, "cloud": 0.8, "night": 0.3}.get(light.kind, 0.4)
    if cover == 0.0:
        return planes
    texture = noise.field(2.6 if light.kind != "cloud" else 3.0, int(rng.integers(noise.FIELDS)))
    stretch = rng.uniform(28, 60) / rng.uniform(0.7, 1.6)
    x, y = rng.uniform(0, 512, 2)
    reach = np.float32(stretch) / (angle + np.float32(0.25))  # of the layer of clouds, texels
    xs = np.linspace(-1, 1, small, dtype=np.float32)[None] * reach + np.float32(x)
    ys = np.repeat(2.4 * reach + np.float32(y), small, 1)
    density = cv2.remap(texture, xs, ys, cv2.INTER_LINEAR, None, cv2.BORDER_WRAP)
    density -= np.float32(0.5 + (0.5 - cover) * 0.42)
    opacity = np.clip(density / np.float32(rng.uniform(0.12, 0.3)), 0, 1) * np.clip(angle * 18.4, 0.18, 0.92)
    shade = np.clip(density / np.float32(0.3), 0, 1)
    covered = []
    for plane, (bright, dark) in zip(planes, _pairs(*CLOUDS[light.kind]), strict=True):
        colour = bright + (dark - bright) * shade
        covered.append(plane + (colour - plane) * opacity)
    return covered
