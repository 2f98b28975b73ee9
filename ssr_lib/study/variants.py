"""What a network of the study is made of, and what it is called in a row of results."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

VERSION = 2  # of what networks, losses and training compute: raise it when their numbers change, so that old ones are not reused
VARIANTS = ("plain", "neighbour", "conv", "self-similarity")
# Descriptors of the frozen map: GeM, summed cosines, GeM on a 3 x 3 grid.
TRAINING_FREE = ("untrained", "structural", "grid")


@dataclass(frozen=True)
class Model:
    """One network of the study, named by everything that makes it."""

    variant: str
    backbone: str
    seed: int | None  # None: not trained here
    regime: str  # training views: "ordinary", "reskinned", or the name of a set of photographs
    place: str
    mid_channels: int
    window: int
    fusion: str
    image_size: int  # pixels
    learning_rate: float  # of the pretrained tail
    steps: int
    initial_gain: float | None = None  # of the module's last batch norm; None: as its place and fusion want it
    checkpoint: str | None = None  # weights below the data folder, {seed} for the training; not trained here

    @property
    def weights(self) -> str:
        """The checkpoint's file below the data folder."""
        return f"{str(self.checkpoint).replace('{seed}', str(self.seed))}.safetensors"

    def params(self) -> dict:
        """What distinguishes the model in a row of results beside backbone, variant and seed."""
        if self.checkpoint:
            return {"checkpoint": Path(self.checkpoint).as_posix()}
        if self.seed is None:
            return {"image_size": self.image_size}
        module = (
            {}
            if self.variant == "plain"
            else {k: getattr(self, k) for k in ("place", "mid_channels", "window", "fusion")}
        )
        if self.initial_gain is not None:
            module["initial_gain"] = self.initial_gain
        return {
            "regime": self.regime,
            "image_size": self.image_size,
            "learning_rate": self.learning_rate,
            "steps": self.steps,
            **module,
        }
