"""The parts that a profile names are there and are what they have to be: found out before anything is drawn."""

import inspect
from collections.abc import Mapping
from types import ModuleType
from typing import Any

import numpy as np

from ssr_lib.files import load_part
from ssr_lib.network import all_options
from ssr_lib.study.profile import Profile

WANTED = {
    "heads": "a class Head(channels, *, seed=0, **options) with width and forward(mid, last, project)",
    "losses": "a class Loss(width, classes, *, seed=0, **options) with per_class and forward(descriptors, labels)",
    "rerank": "rerank(queries, database, first, *, prepared=None, **parameters) that returns a Reranking",
}


def check_parts(profile: Profile) -> None:
    """Raises `ValueError` for heads, losses and re-rankers that lack something or do not take their options."""
    parts = [("training.loss", "losses", profile.training.loss, profile.training.loss_options)]
    parts += [(f"networks.{name}.head", "heads", line.head, line.options) for name, line in profile.networks.items()]
    for name, line in profile.rerankers.items():
        first = {key: values[0] for key, values in line.candidates.items()}
        parts.append((f"rerankers.{name}.module", "rerank", line.module, line.fixed | first))
    for place, package, part, options in parts:
        try:
            _try(package, load_part(part, package), options)
        except ValueError as error:
            raise ValueError(f"{place} {part}: {error}") from error
        except Exception as error:  # whatever a file of the user's own raises, a SyntaxError too
            said = " ".join(f"{type(error).__name__}: {error}".split())
            raise ValueError(f"{place} {part}: {said}; wanted {WANTED[package]}") from error


def _try(package: str, module: ModuleType, options: Mapping[str, Any]) -> None:
    """Use a part as the study does, with next to nothing; it raises whatever it lacks."""
    if package == "rerank":
        descriptors = np.random.default_rng(0).standard_normal((1000, 8), np.float32)  # more rows than any k
        module.rerank(descriptors[:1], descriptors, None, **options).ranks.argmax()
    elif package == "heads":
        head = module.Head((8, 8, 8), seed=0, **all_options(module.Head, options, "it"))
        inspect.signature(head.forward).bind("mid", "last", "project")
    else:
        loss = module.Loss(8, 2, seed=0, **all_options(module.Loss, options, "it"))
        inspect.signature(loss.forward).bind("descriptors", "labels")
