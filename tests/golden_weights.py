"""The weight recipes behind the golden outputs: random numbers in a fixed order, named as published checkpoints are."""

import re
from pathlib import Path

import numpy as np
import torch

GOLDEN = Path(__file__).parent / "golden"


def head_state() -> dict[str, torch.Tensor]:
    """SENet's self-similarity module and head (31 tensors)."""
    rng, state = np.random.default_rng(0), {}

    def draw(name, shape, spread=1.0, centre=0.0):
        state[name] = rng.standard_normal(shape) * spread + centre

    def norm(name, size, small):
        draw(f"{name}.weight", size, 0.1, 1)
        draw(f"{name}.bias", size, 0.1)
        draw(f"{name}.running_mean", size, 0.001 if small else 0.1)
        state[f"{name}.running_var"] = rng.uniform(0.5, 1.5, size) if not small else rng.uniform(0.5e-5, 1.5e-5, size)

    draw("SSM.ch_reduction_encoder.weight", (256, 2048, 1, 1), 0.02)
    for i in range(3):
        draw(f"SSM.SSE.conv_in.{i}.0.weight", (256, 256, 1, 3, 3), 0.02)
        draw(f"SSM.SSE.conv_in.{i}.0.bias", 256, 0.001 if i == 0 else 0.1)
        norm(f"SSM.SSE.conv_in.{i}.1", 256, small=i == 0)
    draw("SSM.SSE.conv1x1_out.0.weight", (2048, 256, 1, 1), 0.05)
    draw("SSM.SSE.conv1x1_out.0.bias", 2048, 0.1)
    norm("SSM.SSE.conv1x1_out.1", 2048, small=False)
    for i in (0, 2):
        draw(f"SSM.FFN.{i}.weight", (2048, 2048, 1, 1), 0.02)
        draw(f"SSM.FFN.{i}.bias", 2048, 0.1)
    draw("head.fc.weight", (2048, 2048), 0.02)
    draw("head.fc.bias", 2048, 0.01)
    return {name: torch.from_numpy(value.astype(np.float32)) for name, value in state.items()}


def backbone_state() -> dict[str, torch.Tensor]:
    """ResNet-50 under the names of pycls."""
    rng, state = np.random.default_rng(5), {}
    with np.load(GOLDEN / "image.npz") as golden:
        for name, text in zip(golden["backbone_param_names"], golden["backbone_param_shapes"], strict=True):
            shape = [int(number) for number in re.findall(r"\d+", str(text))]
            if name.endswith("running_var"):
                value = rng.uniform(0.5, 1.5, shape)
            elif len(shape) == 4:
                value = rng.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:]))
            elif name.endswith("c_bn.weight"):
                value = rng.standard_normal(shape) * 0.05 + 0.2
            else:
                value = rng.standard_normal(shape) * 0.1 + name.endswith("weight")
            state[str(name)] = torch.from_numpy(value.astype(np.float32))
    return state
