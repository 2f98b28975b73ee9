"""The shared encoder: one 3 × 3 kernel over the offsets (u, v) that serves every channel, each channel by itself."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CHUNK_ELEMENTS = 2**19  # numbers held at once at inference: 2 MiB in float32, so that they stay in cache


def encode_shared(terms: list[tuple[Tensor, Tensor]], encoder: nn.ModuleList, window: int) -> Tensor:
    """The sum over `terms` of centre[c, h, w] · surround[c, h + u, w + v], encoded: (B, c, H, W) each → (B, c, H, W).

    `encoder`: `encoder_layers` of one channel without bias. Zeros stand around the map.
    """
    if encoder.training:  # batch norm needs every picture at once
        return encode_pictures(terms, encoder, window)
    pictures = max(1, CHUNK_ELEMENTS // (terms[0][0][0].numel() * (window - 2) ** 2))
    parts = zip(*(torch.stack(term).split(pictures, dim=1) for term in terms), strict=True)
    return torch.cat([encode_pictures([term.unbind() for term in part], encoder, window) for part in parts])


def encode_pictures(terms: list[tuple[Tensor, Tensor]], encoder: nn.ModuleList, window: int) -> Tensor:
    """`encode_shared` of all pictures at once.

    A centre is one number a window and the first convolution K is linear: K(centre · surround) = centre · K(surround).
    So K goes once over the padded map instead of once over the window of each place.
    """
    half = window // 2
    side = window - 2  # of the window after K
    batch, channels, height, width = terms[0][0].shape
    total = 0
    for centre, surround in terms:
        kernel = encoder[0][0].weight.expand(channels, 1, 3, 3)
        around = F.conv2d(F.pad(surround, (half, half, half, half)), kernel, groups=channels).permute(0, 2, 3, 1)
        windows = around.unfold(1, side, 1).unfold(2, side, 1).permute(4, 5, 0, 1, 2, 3)  # (U, V, B, H, W, c)
        total = total + windows.contiguous() * centre.permute(0, 2, 3, 1)
    z = normed(total.flatten(), encoder[0])
    for block in encoder[1:]:
        units = torch.eye(side * side, dtype=z.dtype, device=z.device).view(-1, 1, side, side)
        matrix = F.conv2d(units, block[0].weight).flatten(1)  # (U·V, (U − 2)(V − 2)): the convolution as a matrix
        z = normed(matrix.T @ z.view(side * side, -1), block)  # one product for all places and channels
        side -= 2
    return z.view(batch, height, width, channels).permute(0, 3, 1, 2)


def normed(z: Tensor, block: nn.Sequential) -> Tensor:
    """Batch norm of one channel over all numbers, then ReLU."""
    _, norm, relu = block
    return relu(norm(z.view(1, 1, 1, -1)))
