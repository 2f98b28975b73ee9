"""A flat surface's texture, in several resolutions."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar

import cv2
import numpy as np


@dataclass
class Surface:
    """A texture and its halvings. Walls have relief, glass and panes; roofs and grounds do not."""

    colour: np.ndarray  # (h, w, 3) uint8 sRGB
    relief: np.ndarray | None = None  # (h, w) uint8: cm above the wall, plus BASE
    glass: np.ndarray | None = None  # (h, w) uint8: 255 where glass
    panes: np.ndarray | None = None  # (h, w) uint8: a number for each window, 0 where none
    glazed: ClassVar[bool] = False  # only a `Texture` may have windows
    _levels: dict[int, Surface] = field(default_factory=dict, repr=False)

    @cached_property
    def mean(self) -> np.ndarray:
        """The mean colour (3,) float."""
        return np.array(cv2.mean(self.colour)[:3])

    def part(self, rows: slice, columns: slice) -> Surface:
        """A rectangle of the surface, not a copy."""
        cut = (rows, columns)
        if self.relief is None:
            return Surface(self.colour[cut])
        return Surface(self.colour[cut], self.relief[cut], self.glass[cut], self.panes[cut])

    def level(self, number: int) -> Surface:
        """The surface at 1 / 2^number of its resolution."""
        if number <= 0:
            return self
        if number not in self._levels:
            finer = self.level(number - 1)
            h, w = finer.colour.shape[:2]
            size = (max(1, w // 2), max(1, h // 2))
            coarser = Surface(cv2.resize(finer.colour, size, interpolation=cv2.INTER_AREA))
            if finer.relief is not None:
                coarser.relief = cv2.resize(finer.relief, size, interpolation=cv2.INTER_AREA)
                coarser.glass = cv2.resize(finer.glass, size, interpolation=cv2.INTER_AREA)
                coarser.panes = finer.panes[::2, ::2][: size[1], : size[0]]  # many times as fast as cv2.resize
            self._levels[number] = coarser
        return self._levels[number]
