"""What stands in the street: people, cars, lamps. Pictures at a fixed scale, tinted and placed on the ground."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np

from .chance import pick
from .noise import ASSETS, halvings

SCALE = 64  # pixels per metre of these pictures
NUMBER = 40  # different pictures of each kind
# fmt: off
CLOTHES = ((40, 44, 58), (66, 62, 58), (120, 40, 38), (52, 74, 104), (190, 186, 176), (88, 96, 74), (30, 30, 32),
           (168, 140, 96), (140, 150, 160))
SKIN = ((222, 184, 156), (196, 148, 116), (142, 98, 72), (92, 62, 46))
HAIR = ((40, 30, 24), (90, 66, 44), (150, 140, 130), (24, 22, 22))
PAINT = ((196, 198, 200), (232, 232, 230), (40, 42, 46), (96, 100, 106), (132, 30, 30), (36, 58, 98), (150, 152, 150),
         (62, 74, 66), (178, 160, 128))
IRON = ((46, 50, 50), (70, 74, 76), (40, 54, 46))
BODIES = {  # length; silhouettes from rear to front above the wheels: x, height; then the windows
    "saloon": (
        4.5,
        ((0.05, 0.85), (0.3, 1.0), (1.0, 1.05), (1.5, 1.42), (2.7, 1.44), (3.35, 1.02), (4.2, 0.9), (4.45, 0.7)),
        ((1.2, 1.06), (1.6, 1.36), (2.62, 1.38), (3.12, 1.05))),
    "hatch": (
        4.0,
        ((0.05, 0.8), (0.15, 1.1), (0.5, 1.48), (2.1, 1.5), (2.9, 1.06), (3.7, 0.92), (3.95, 0.7)),
        ((0.4, 1.1), (0.65, 1.42), (2.02, 1.43), (2.65, 1.08))),
    "estate": (
        4.7,
        ((0.05, 0.85), (0.12, 1.2), (0.6, 1.66), (2.9, 1.68), (3.6, 1.12), (4.4, 1.0), (4.65, 0.75)),
        ((0.45, 1.18), (0.75, 1.58), (2.82, 1.6), (3.35, 1.15))),
    "van": (
        5.0,
        ((0.05, 0.7), (0.05, 2.1), (0.2, 2.2), (3.6, 2.2), (4.3, 1.35), (4.85, 1.15), (4.95, 0.7)),
        ((3.3, 1.35), (3.3, 1.95), (3.62, 1.98), (4.1, 1.38))),
}
# fmt: on


class Sprite:
    """A picture in the making: colour (h, w, 3) and opacity (h, w), uint8; places in metres, from the upper left."""

    def __init__(self, height: float, width: float):
        self.colour = np.zeros((round(height * SCALE), round(width * SCALE), 3), np.uint8)
        self.opacity = np.zeros(self.colour.shape[:2], np.uint8)

    def polygon(self, colour, *points) -> None:
        fixed = np.round(np.asarray(points, float) * SCALE * 16).astype(np.int32)
        cv2.fillPoly(self.colour, [fixed], colour, cv2.LINE_AA, 4)
        cv2.fillPoly(self.opacity, [fixed], 255, cv2.LINE_AA, 4)

    def ellipse(self, colour, centre: tuple[int, int], radii: tuple[int, int], start: int = 0) -> None:
        """An ellipse, or what lies after the angle `start`; centre and radii in pixels."""
        cv2.ellipse(self.colour, centre, radii, 0, start, 360, colour, -1, cv2.LINE_AA)
        cv2.ellipse(self.opacity, centre, radii, 0, start, 360, 255, -1, cv2.LINE_AA)

    def disc(self, colour, centre: tuple[int, int], radius: int, *, opaque: bool = True) -> None:
        """A disc, pixels; or only its colour, where something opaque is already."""
        cv2.circle(self.colour, centre, radius, colour, -1, cv2.LINE_AA)
        if opaque:
            cv2.circle(self.opacity, centre, radius, 255, -1, cv2.LINE_AA)


def _shade(colour, by: float) -> tuple[int, ...]:
    return tuple(int(np.clip(c * by, 0, 255)) for c in colour)


def person(rng: np.random.Generator) -> Sprite:
    """A walker, feet at the lower edge."""
    tall = rng.uniform(1.52, 1.86)
    sprite = Sprite(1.9, 0.9)
    top, x = 1.9 - tall, 0.45
    skin = pick(rng, SKIN)
    coat, legs = (CLOTHES[i] for i in rng.integers(len(CLOTHES), size=2))
    hip, shoulder, neck = top + tall * 0.5, top + tall * 0.19, top + tall * 0.15
    step = rng.uniform(0.02, 0.2)
    for side, tone in ((-1, 0.8), (1, 1.0)):  # legs and shoes
        foot, thigh = x + side * step, x + side * 0.09
        leg = ((thigh - 0.07, hip), (thigh + 0.07, hip), (foot + 0.05, 1.86), (foot - 0.05, 1.86))
        sprite.polygon(_shade(legs, tone), *leg)
        shoe = ((foot - 0.06, 1.84), (foot + 0.1, 1.84), (foot + 0.1, 1.9), (foot - 0.06, 1.9))
        sprite.polygon((28, 24, 22), *shoe)
    long = hip + pick(rng, (0.06, 0.06, 0.34))  # a jacket or a coat
    for side, tone in ((-1, 0.72), (1, 0.9)):  # arms
        hand, arm, wrist = x + side * (0.2 + 0.3 * step), x + side * 0.17, hip + 0.05
        sleeve = ((arm - 0.05, shoulder), (arm + 0.05, shoulder), (hand + 0.045, wrist), (hand - 0.045, wrist))
        sprite.polygon(_shade(coat, tone), *sleeve)
        sprite.disc(skin, (round(hand * SCALE), round((hip + 0.08) * SCALE)), 3)
    back = ((x - 0.2, shoulder), (x - 0.07, neck), (x + 0.07, neck), (x + 0.2, shoulder))
    sprite.polygon(coat, *back, (x + 0.16, long), (x - 0.16, long))
    side = ((x + 0.06, neck + 0.02), (x + 0.2, shoulder), (x + 0.16, long), (x + 0.07, long))
    sprite.polygon(_shade(coat, 0.8), *side)
    head = (round(x * SCALE), round((top + 0.12) * SCALE))
    sprite.ellipse(skin, head, (6, 8))
    sprite.ellipse(pick(rng, HAIR), (head[0], head[1] - 3), (7, 6), 180)
    return sprite


def car(rng: np.random.Generator) -> Sprite:
    """A parked car from its side, wheels at the lower edge."""
    length, line, glass = BODIES[pick(rng, ("saloon", "hatch", "hatch", "estate", "van"))]
    tall = 2.3
    sprite = Sprite(tall, length + 0.1)
    paint = pick(rng, PAINT)

    def polygon(colour, *points) -> None:
        sprite.polygon(colour, *((x, tall - y) for x, y in points))

    polygon(paint, *line, (length - 0.02, 0.28), (0.05, 0.28))
    polygon(_shade(paint, 0.74), (0.05, 0.62), (length - 0.05, 0.62), (length - 0.03, 0.26), (0.05, 0.26))
    polygon(_shade(paint, 1.14), (0.1, 0.8), (length - 0.25, 0.8), (length - 0.2, 0.86), (0.1, 0.88))
    polygon((46, 54, 62), *glass)
    (_, low), (b, top), (c, _), _ = glass
    polygon((104, 118, 130), (b, top), (c, top), (c - 0.4, (top + low) / 2), (b, (top + low) / 2))
    a, d = (b + c) / 2 - 0.04, (b + c) / 2 + 0.04
    polygon(_shade(paint, 0.6), (a, low), (d, low), (d, top), (a, top))
    front = length - 0.1
    polygon((232, 232, 220), (length - 0.28, 0.74), (front, 0.72), (front, 0.62), (length - 0.3, 0.64))
    polygon((150, 30, 26), (0.06, 0.86), (0.18, 0.86), (0.18, 0.7), (0.06, 0.7))
    for x in (0.19 * length, 0.8 * length):
        hub = (round(x * SCALE), round((tall - 0.32) * SCALE))
        sprite.disc(_shade(paint, 0.3), hub, round(0.38 * SCALE), opaque=False)
        sprite.disc((24, 24, 26), hub, round(0.32 * SCALE))
        sprite.disc((150, 152, 156), hub, round(0.2 * SCALE), opaque=False)
        sprite.disc((70, 70, 74), hub, round(0.08 * SCALE), opaque=False)
    if rng.random() < 0.5:
        sprite.colour, sprite.opacity = cv2.flip(sprite.colour, 1), cv2.flip(sprite.opacity, 1)
    return sprite


def lamp(rng: np.random.Generator, lit: bool) -> Sprite:
    """A street lamp, 6 metres tall."""
    tall, x = 6.0, 0.9
    sprite = Sprite(tall, 1.8)
    iron = pick(rng, IRON)
    sprite.polygon(iron, (x - 0.05, 0.5), (x + 0.05, 0.5), (x + 0.08, tall), (x - 0.08, tall))
    sprite.polygon(iron, (x - 0.14, tall - 0.7), (x + 0.14, tall - 0.7), (x + 0.16, tall), (x - 0.16, tall))
    glow = (255, 236, 190) if lit else (198, 202, 200)
    if rng.random() < 0.5:  # a lantern
        sprite.polygon(glow, (x - 0.14, 0.6), (x - 0.2, 0.2), (x + 0.2, 0.2), (x + 0.14, 0.6))
        sprite.polygon(iron, (x - 0.24, 0.22), (x, 0.02), (x + 0.24, 0.22))
    else:  # an arm
        sprite.polygon(iron, (x - 0.04, 0.45), (x + 0.7, 0.22), (x + 0.7, 0.3), (x + 0.04, 0.55))
        end = glow if lit else iron
        sprite.polygon(end, (x + 0.4, 0.2), (x + 0.88, 0.16), (x + 0.88, 0.3), (x + 0.4, 0.36))
    return sprite


@lru_cache(maxsize=256)
def picture(what: str, number: int, lit: bool) -> tuple[np.ndarray, ...]:
    """Picture `number` of a person, car or lamp: colour and opacity (h, w, 4) uint8, and its halvings."""
    rng = np.random.default_rng([ASSETS, 53, number, sum(what.encode())])
    sprite = lamp(rng, lit) if what == "lamp" else {"person": person, "car": car}[what](rng)
    return halvings(cv2.merge([sprite.colour, sprite.opacity]))
