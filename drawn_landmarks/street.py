"""What stands in the street: people, cars, lamps. Pictures at a fixed scale, tinted and placed on the ground."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np

from .noise import ASSETS, halvings

SCALE = 64  # pixels per metre of these pictures
NUMBER = 40  # different pictures of each kind


def _poly(image, alpha, points, colour) -> None:
    fixed = np.round(np.asarray(points, float) * SCALE * 16).astype(np.int32)
    cv2.fillPoly(image, [fixed], colour, cv2.LINE_AA, 4)
    cv2.fillPoly(alpha, [fixed], 255, cv2.LINE_AA, 4)


def _dark(colour, by: float):
    return tuple(int(np.clip(c * by, 0, 255)) for c in colour)


CLOTHES = (
    (40, 44, 58),
    (66, 62, 58),
    (120, 40, 38),
    (52, 74, 104),
    (190, 186, 176),
    (88, 96, 74),
    (30, 30, 32),
    (168, 140, 96),
    (140, 150, 160),
)
SKIN = ((222, 184, 156), (196, 148, 116), (142, 98, 72), (92, 62, 46))


def person(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A walker, about 1.9 x 0.9 metres: colour (h, w, 3) and opacity (h, w), uint8; feet at the lower edge."""
    tall = rng.uniform(1.52, 1.86)
    h, w = round(1.9 * SCALE), round(0.9 * SCALE)
    image, alpha = np.zeros((h, w, 3), np.uint8), np.zeros((h, w), np.uint8)
    top, x = 1.9 - tall, 0.45
    skin = SKIN[rng.integers(len(SKIN))]
    coat, legs = (CLOTHES[i] for i in rng.integers(len(CLOTHES), size=2))
    hip, shoulder, neck = top + tall * 0.5, top + tall * 0.19, top + tall * 0.15
    step = rng.uniform(0.02, 0.2)
    for side, tone in ((-1, 0.8), (1, 1.0)):  # legs and shoes
        foot = x + side * step
        _poly(
            image,
            alpha,
            [(x + side * 0.09 - 0.07, hip), (x + side * 0.09 + 0.07, hip), (foot + 0.05, 1.86), (foot - 0.05, 1.86)],
            _dark(legs, tone),
        )
        _poly(
            image, alpha, [(foot - 0.06, 1.84), (foot + 0.1, 1.84), (foot + 0.1, 1.9), (foot - 0.06, 1.9)], (28, 24, 22)
        )
    long = hip + rng.choice([0.06, 0.06, 0.34])  # a jacket or a coat
    for side, tone in ((-1, 0.72), (1, 0.9)):  # arms
        hand = x + side * (0.2 + 0.3 * step)
        _poly(
            image,
            alpha,
            [
                (x + side * 0.17 - 0.05, shoulder),
                (x + side * 0.17 + 0.05, shoulder),
                (hand + 0.045, hip + 0.05),
                (hand - 0.045, hip + 0.05),
            ],
            _dark(coat, tone),
        )
        cv2.circle(image, (round(hand * SCALE), round((hip + 0.08) * SCALE)), 3, skin, -1, cv2.LINE_AA)
        cv2.circle(alpha, (round(hand * SCALE), round((hip + 0.08) * SCALE)), 3, 255, -1, cv2.LINE_AA)
    _poly(
        image,
        alpha,
        [
            (x - 0.2, shoulder),
            (x - 0.07, neck),
            (x + 0.07, neck),
            (x + 0.2, shoulder),
            (x + 0.16, long),
            (x - 0.16, long),
        ],
        coat,
    )
    _poly(
        image,
        alpha,
        [(x + 0.06, neck + 0.02), (x + 0.2, shoulder), (x + 0.16, long), (x + 0.07, long)],
        _dark(coat, 0.8),
    )
    head = (round(x * SCALE), round((top + 0.12) * SCALE))
    for target, value in ((image, skin), (alpha, 255)):
        cv2.ellipse(target, head, (6, 8), 0, 0, 360, value, -1, cv2.LINE_AA)
    hair = ((40, 30, 24), (90, 66, 44), (150, 140, 130), (24, 22, 22))[rng.integers(4)]
    cv2.ellipse(image, (head[0], head[1] - 3), (7, 6), 0, 180, 360, hair, -1, cv2.LINE_AA)
    cv2.ellipse(alpha, (head[0], head[1] - 3), (7, 6), 0, 180, 360, 255, -1, cv2.LINE_AA)
    return image, alpha


PAINT = (
    (196, 198, 200),
    (232, 232, 230),
    (40, 42, 46),
    (96, 100, 106),
    (132, 30, 30),
    (36, 58, 98),
    (150, 152, 150),
    (62, 74, 66),
    (178, 160, 128),
)
BODIES = {  # silhouettes from rear to front above the wheels: x, height; then the windows
    "saloon": (
        4.5,
        ((0.05, 0.85), (0.3, 1.0), (1.0, 1.05), (1.5, 1.42), (2.7, 1.44), (3.35, 1.02), (4.2, 0.9), (4.45, 0.7)),
        ((1.2, 1.06), (1.6, 1.36), (2.62, 1.38), (3.12, 1.05)),
    ),
    "hatch": (
        4.0,
        ((0.05, 0.8), (0.15, 1.1), (0.5, 1.48), (2.1, 1.5), (2.9, 1.06), (3.7, 0.92), (3.95, 0.7)),
        ((0.4, 1.1), (0.65, 1.42), (2.02, 1.43), (2.65, 1.08)),
    ),
    "estate": (
        4.7,
        ((0.05, 0.85), (0.12, 1.2), (0.6, 1.66), (2.9, 1.68), (3.6, 1.12), (4.4, 1.0), (4.65, 0.75)),
        ((0.45, 1.18), (0.75, 1.58), (2.82, 1.6), (3.35, 1.15)),
    ),
    "van": (
        5.0,
        ((0.05, 0.7), (0.05, 2.1), (0.2, 2.2), (3.6, 2.2), (4.3, 1.35), (4.85, 1.15), (4.95, 0.7)),
        ((3.3, 1.35), (3.3, 1.95), (3.62, 1.98), (4.1, 1.38)),
    ),
}


def car(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A parked car from its side: colour and opacity as `person`; 64 pixels a metre, wheels at the lower edge."""
    length, line, glass = BODIES[("saloon", "hatch", "hatch", "estate", "van")[rng.integers(5)]]
    tall = 2.3
    h, w = round(tall * SCALE), round((length + 0.1) * SCALE)
    image, alpha = np.zeros((h, w, 3), np.uint8), np.zeros((h, w), np.uint8)
    paint = PAINT[rng.integers(len(PAINT))]

    def at(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
        return [(x, tall - y) for x, y in points]

    _poly(image, alpha, at([*line, (length - 0.02, 0.28), (0.05, 0.28)]), paint)
    _poly(
        image, alpha, at([(0.05, 0.62), (length - 0.05, 0.62), (length - 0.03, 0.26), (0.05, 0.26)]), _dark(paint, 0.74)
    )
    _poly(image, alpha, at([(0.1, 0.8), (length - 0.25, 0.8), (length - 0.2, 0.86), (0.1, 0.88)]), _dark(paint, 1.14))
    _poly(image, alpha, at(glass), (46, 54, 62))
    (_a, low), (b, top), (c, _), (_d, _) = glass
    _poly(image, alpha, at([(b, top), (c, top), (c - 0.4, (top + low) / 2), (b, (top + low) / 2)]), (104, 118, 130))
    middle = (b + c) / 2
    _poly(
        image,
        alpha,
        at([(middle - 0.04, low), (middle + 0.04, low), (middle + 0.04, top), (middle - 0.04, top)]),
        _dark(paint, 0.6),
    )
    _poly(
        image,
        alpha,
        at([(length - 0.28, 0.74), (length - 0.1, 0.72), (length - 0.1, 0.62), (length - 0.3, 0.64)]),
        (232, 232, 220),
    )
    _poly(image, alpha, at([(0.06, 0.86), (0.18, 0.86), (0.18, 0.7), (0.06, 0.7)]), (150, 30, 26))
    for x in (0.19 * length, 0.8 * length):
        spot = (round(x * SCALE), round((tall - 0.32) * SCALE))
        for radius, colour in (
            (0.38, _dark(paint, 0.3)),
            (0.32, (24, 24, 26)),
            (0.2, (150, 152, 156)),
            (0.08, (70, 70, 74)),
        ):
            cv2.circle(image, spot, round(radius * SCALE), colour, -1, cv2.LINE_AA)
        cv2.circle(alpha, spot, round(0.32 * SCALE), 255, -1, cv2.LINE_AA)
    return (image[:, ::-1].copy(), alpha[:, ::-1].copy()) if rng.random() < 0.5 else (image, alpha)


def lamp(rng: np.random.Generator, lit: bool) -> tuple[np.ndarray, np.ndarray]:
    """A street lamp, 6 metres tall: colour and opacity as `person`."""
    tall, w = 6.0, 1.8
    image = np.zeros((round(tall * SCALE), round(w * SCALE), 3), np.uint8)
    alpha = np.zeros(image.shape[:2], np.uint8)
    iron = ((46, 50, 50), (70, 74, 76), (40, 54, 46))[rng.integers(3)]
    x = w / 2
    _poly(image, alpha, [(x - 0.05, 0.5), (x + 0.05, 0.5), (x + 0.08, tall), (x - 0.08, tall)], iron)
    _poly(image, alpha, [(x - 0.14, tall - 0.7), (x + 0.14, tall - 0.7), (x + 0.16, tall), (x - 0.16, tall)], iron)
    glow = (255, 236, 190) if lit else (198, 202, 200)
    if rng.random() < 0.5:  # a lantern
        _poly(image, alpha, [(x - 0.14, 0.6), (x - 0.2, 0.2), (x + 0.2, 0.2), (x + 0.14, 0.6)], glow)
        _poly(image, alpha, [(x - 0.24, 0.22), (x, 0.02), (x + 0.24, 0.22)], iron)
    else:  # an arm
        _poly(image, alpha, [(x - 0.04, 0.45), (x + 0.7, 0.22), (x + 0.7, 0.3), (x + 0.04, 0.55)], iron)
        _poly(image, alpha, [(x + 0.4, 0.2), (x + 0.88, 0.16), (x + 0.88, 0.3), (x + 0.4, 0.36)], glow if lit else iron)
    return image, alpha


@lru_cache(maxsize=256)
def picture(what: str, number: int, lit: bool) -> tuple[np.ndarray, ...]:
    """Picture `number` of a person, car or lamp: colour and opacity (h, w, 4) uint8, and its halvings."""
    rng = np.random.default_rng([ASSETS, 53, number, sum(what.encode())])
    colour, alpha = {"person": person, "car": car}[what](rng) if what != "lamp" else lamp(rng, lit)
    return halvings(cv2.merge([colour, alpha]))
