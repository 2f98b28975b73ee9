"""The control of the product: the same layers see the neighbourhood F[:, h + u, w + v] alone, without self-similarity.

Parameters, receptive field, normalisation and non-linearities are those of `product`; docs/method.md, section 2.3.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ssr_lib.heads import EmbeddingHead
from ssr_lib.self_similarity import pad


class Head(EmbeddingHead):
    """As `product` with R[:, h, w, u, v] = max(F[:, h + u, w + v], 0), for an eighth of the work.

    Without the product a window's content does not depend on the place it surrounds, so overlapping windows share their
    convolutions: those of the padded map. Batch norm counts every position as often as windows contain it.
    """

    def encode(self, f: Tensor) -> Tensor:
        return encode_neighbourhood(pad(f, self.window).relu(), self.encoder, self.window)


def encode_neighbourhood(padded: Tensor, encoder: nn.ModuleList, window: int) -> Tensor:
    """Padded F (B, H + window − 1, W + window − 1, c) → the encoded windows F[:, h + u, w + v] (B, c, H, W)."""
    height, width = padded.shape[1] - window + 1, padded.shape[2] - window + 1
    z = padded.permute(0, 3, 1, 2)  # (B, c, H + window − 1, W + window − 1)
    for convolution, norm, relu in encoder:
        z = convolution(z)
        left = z.shape[2] - height + 1  # side of the window after this convolution
        z = relu(shared_batch_norm(z, norm, repeats(height, left), repeats(width, left)))
    return z


def repeats(length: int, window: int) -> Tensor:
    """How many of `length` windows side by side contain each of the length + window − 1 positions."""
    positions = torch.arange(length + window - 1)
    return torch.minimum((positions + 1).clamp(max=min(length, window)), length + window - 1 - positions)


def shared_batch_norm(z: Tensor, norm: nn.BatchNorm2d, rows: Tensor, columns: Tensor) -> Tensor:
    """`norm` of z (B, C, H, W) as if row y occurred rows[y] times and column x columns[x] times."""
    if not norm.training:
        return norm(z)
    z = z.to(norm.running_mean)  # under autocast z is narrower
    weights = torch.outer(rows, columns).to(z)  # (H, W)
    count = float(weights.sum()) * len(z)
    mean = (z * weights).sum(dim=(0, 2, 3)) / count  # (C,)
    centred = z - mean[:, None, None]
    variance = (centred.square() * weights).sum(dim=(0, 2, 3)) / count
    with torch.no_grad():
        norm.num_batches_tracked += 1
        momentum = 1 / int(norm.num_batches_tracked) if norm.momentum is None else norm.momentum  # as torch does
        norm.running_mean.lerp_(mean, momentum)
        norm.running_var.lerp_(variance * count / (count - 1), momentum)
    return centred * (norm.weight * (variance + norm.eps).rsqrt())[:, None, None] + norm.bias[:, None, None]
