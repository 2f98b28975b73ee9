"""Self-similarity of a feature map: cosines, a descriptor of them, the encoder of products (Lee et al., CVPR 2023)."""

from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CHUNK_ELEMENTS = 2**24  # products held at once at inference: 64 MiB in float32


def check_window(window: int) -> int:
    if not isinstance(window, int) or window < 3 or window % 2 == 0:
        raise ValueError(f"window is {window!r}; an odd whole number of at least 3 is wanted (7 is usual)")
    return window


class Products(torch.autograd.Function):
    """Clamped products of each place with its window, padded F (B, H + window − 1, …, C) → (B, H, W, U, V, C).

    The gradient is written out because autograd's would hold and sweep several more tensors of the full size.
    """

    @staticmethod
    def forward(ctx, padded: Tensor, window: int) -> Tensor:
        windows = padded.unfold(1, window, 1).unfold(2, window, 1).permute(0, 1, 2, 4, 5, 3)  # (B, H, W, U, V, C)
        products = (windows * inner(padded, window)[:, :, :, None, None]).relu_()
        ctx.save_for_backward(padded, products)
        ctx.window = window
        return products

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        result = torch.zeros_like(ctx.saved_tensors[0])
        pieces = [tensor.split(16) for tensor in (result, gradient, *ctx.saved_tensors)]  # 16 images stay in cache
        for total, upstream, padded, products in zip(*pieces, strict=True):
            masked = torch.where(products > 0, upstream, 0)
            centres = inner(padded, ctx.window)
            height, width = products.shape[1:3]
            for u, v in product(range(ctx.window), repeat=2):
                there = (slice(None), slice(u, u + height), slice(v, v + width))
                total[there].addcmul_(masked[:, :, :, u, v], centres)
                inner(total, ctx.window).addcmul_(masked[:, :, :, u, v], padded[there])
        return result, None


def inner(padded: Tensor, window: int) -> Tensor:
    """The map without its padding, a view."""
    half = window // 2
    return padded[:, half : padded.shape[1] - half, half : padded.shape[2] - half]


def self_similarity_map(x: Tensor, window: int = 7) -> Tensor:
    """Cosine of every place with each neighbour in its window, (B, C, H, W) → (B, H, W, U, V); 0 outside the map.

    u counts rows and v columns, from −window // 2; the middle entry is 1 (0 where the place has no signal).
    """
    half = check_window(window) // 2
    f = F.normalize(x, dim=1)
    height, width = x.shape[2:]
    padded = F.pad(f, (half, half, half, half))
    starts = product(range(window), repeat=2)
    cosines = [(f * padded[:, :, u : u + height, v : v + width]).sum(dim=1) for u, v in starts]
    return torch.stack(cosines, dim=-1).unflatten(-1, (window, window))


def structural_descriptor(x: Tensor, window: int = 7) -> Tensor:
    """Training-free descriptor of layout: second-order statistics of the cosines, (B, C, H, W) → (B, D) unit rows.

    For every pair of offsets the covariance, over the places where both stay on the map, of their cosines; with the
    mean of every offset, less the mean of those: D = n(n + 1)/2 + n for the n = window² − 1 offsets but the middle one.
    """
    offsets = [i for i in range(window * window) if i != window * window // 2]
    cosines = self_similarity_map(x, window).flatten(3)[..., offsets].flatten(1, 2)  # (B, H·W, n)
    inside = self_similarity_map(torch.ones_like(x[:1, :1]), window).flatten(3)[..., offsets].flatten(1, 2)
    mean = cosines.sum(dim=1) / inside.sum(dim=1).clamp(min=1)  # (B, n)
    centred = (cosines - mean[:, None]) * inside
    covariance = centred.transpose(1, 2) @ centred / (inside.transpose(1, 2) @ inside).clamp(min=1)  # (B, n, n)
    rows, columns = torch.triu_indices(len(offsets), len(offsets), device=x.device)
    second = covariance[:, rows, columns]
    second = F.normalize(second.sign() * second.abs().sqrt(), dim=1)  # the root: few large ones would decide everything
    first = F.normalize(mean - mean.mean(dim=1, keepdim=True), dim=1)
    return F.normalize(torch.cat([second, first], dim=1), dim=1)


def encoder_layers(channels: int, window: int, padding: int = 0, bias: bool = True) -> nn.ModuleList:
    """3 × 3 convolutions with batch norm and ReLU: without padding they bring `window` × `window` offsets to one."""
    layers = nn.ModuleList()
    for _ in range(check_window(window) // 2):
        convolution = nn.Conv2d(channels, channels, 3, padding=padding, bias=bias)
        layers.append(nn.Sequential(convolution, nn.BatchNorm2d(channels), nn.ReLU(inplace=True)))
    return layers


def pad(f: Tensor, window: int) -> Tensor:
    """F (B, c, H, W) with zeros around it and its channels last: (B, H + window − 1, W + window − 1, c)."""
    half = window // 2
    return F.pad(f, (half, half, half, half)).permute(0, 2, 3, 1).contiguous()


def encode(f: Tensor, encoder: nn.ModuleList, window: int) -> Tensor:
    """F (B, c, H, W) → the encoded products of every place with its window, same shape."""
    padded = pad(f, window)
    if encoder.training:  # batch norm needs every place at once
        return encode_windows(Products.apply(padded, window), encoder)
    rows = max(1, CHUNK_ELEMENTS // (f[:, :, 0].numel() * window**2))
    slabs = [padded[:, top : top + rows + window - 1] for top in range(0, f.shape[2], rows)]
    return torch.cat([encode_windows(Products.apply(slab, window), encoder) for slab in slabs], dim=2)


def encode_windows(relations: Tensor, encoder: nn.ModuleList) -> Tensor:
    """What relates each place to its window (B, H, W, U, V, c), encoded: (B, c, H, W)."""
    z = relations.flatten(0, 2).permute(0, 3, 1, 2)  # (B·H·W, c, U, V): little images, channels last in memory
    for block in encoder[:-1]:
        z = block(z)  # U and V shrink by 2
    convolution, norm, relu = encoder[-1]  # 3 × 3 → 1 × 1 is one matrix product, twice as fast as the convolution
    rows, weight = (x.permute(0, 2, 3, 1).flatten(1) for x in (z, convolution.weight))  # (B·H·W, 9·c), (c, 9·c)
    z = relu(norm(F.linear(rows, weight, convolution.bias)[:, :, None, None]))
    return z.reshape(*relations.shape[:3], -1).permute(0, 3, 1, 2)
