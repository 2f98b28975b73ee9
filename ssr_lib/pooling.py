"""Pooling: one global descriptor, not L2-normalised, from a feature map. Functions on (B, C, H, W), `GeM` a module."""

import math
from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def mac(x: Tensor) -> Tensor:
    """Maximum activations of convolutions, (B, C, H, W) → (B, C). Tolias et al., ICLR 2016."""
    return x.amax(dim=(2, 3))


def spoc(x: Tensor) -> Tensor:
    """Mean of the map, (B, C, H, W) → (B, C): sum-pooled convolutional features. Babenko & Lempitsky, ICCV 2015."""
    return x.mean(dim=(2, 3))


def gem(x: Tensor, p: float | Tensor = 3.0, eps: float = 1e-6) -> Tensor:
    """Generalised mean (mean of x^p)^(1/p), (B, C, H, W) → (B, C); x clamped at `eps`. Radenović et al., TPAMI 2019."""
    return x.clamp(min=eps).pow(p).mean(dim=(2, 3)).pow(1 / p)


class SmallMapError(ValueError):
    """A feature map, and so its picture, is too small for what is asked of it."""


def regional_gem(x: Tensor, p: float = 2.5, size: int = 5) -> Tensor:
    """Each place averaged with the GeM of its `size` × `size` neighbourhood (reflect padding); the shape stays.

    x (B, C, H, W) must be non-negative (a negative value gives NaN, as in the original) with H, W > size // 2, else
    `SmallMapError`. Source: SuperGlobal, Shao et al., ICCV 2023.
    """
    half = size // 2
    if min(x.shape[2:]) <= half:
        raise SmallMapError(f"the map is {tuple(x.shape[2:])}; both sides must exceed {half}: enlarge the image")
    padded = F.pad(x, (half, half, half, half), mode="reflect")
    return 0.5 * x + 0.5 * F.avg_pool2d(padded.pow(p), size, stride=1).pow(1 / p)


def rmac_regions(height: int, width: int, levels: int = 3) -> list[tuple[int, int, int, int]]:
    """Regions (y0, x0, h, w) of R-MAC: the whole map, then squares that overlap by about 40 %. Tolias et al. 2016."""
    short, long = min(height, width), max(height, width)
    overlaps = {n: (short * short - short * ((long - short) / n)) / short**2 for n in range(1, 7)}
    extra = min(overlaps, key=lambda n: abs(overlaps[n] - 0.4))  # more squares along the long side
    regions = [(0, 0, height, width)]
    for level in range(1, min(levels, 2 * short - 1) + 1):  # as long as a square has a place
        side, starts = 2 * short // (level + 1), []
        for length in (height, width):
            n = level if length == short else level + extra
            starts.append([i * (length - side) // max(1, n - 1) for i in range(n)])
        regions += [(y, x, side, side) for y, x in product(*starts)]
    return regions


def rmac(x: Tensor, levels: int = 3) -> Tensor:
    """Sum of the L2-normalised maxima of `rmac_regions`, (B, C, H, W) → (B, C). Tolias et al., ICLR 2016."""
    maxima = [mac(x[:, :, y : y + h, x0 : x0 + w]) for y, x0, h, w in rmac_regions(*x.shape[2:], levels)]
    return sum(vector / (vector.norm(dim=1, keepdim=True) + 1e-6) for vector in maxima)


def crow_weights(x: Tensor, a: float = 2.0, b: float = 2.0, eps: float = 1e-12) -> tuple[Tensor, Tensor]:
    """Spatial S (B, H, W) and channel weights I (B, C) of cross-dimensional weighting, see `heads.crow`; x ≥ 0."""
    x = x.to(torch.promote_types(x.dtype, torch.float32))  # eps is 0 in float16
    s = x.sum(dim=1)  # S′
    s = s / torch.linalg.vector_norm(s, a, dim=(1, 2), keepdim=True).clamp(min=eps)
    q = (x > 0).to(x.dtype).mean(dim=(2, 3))  # (B, C): share of places where the channel answers
    rarity = torch.log(q.sum(dim=1, keepdim=True) / q)
    return s.clamp(min=eps).pow(1 / b), rarity.where(q > 0, 0)  # the root has no slope at 0


def crow(x: Tensor, a: float = 2.0, b: float = 2.0) -> Tensor:
    """Weighted sum over places and channels, (B, C, H, W) → (B, C). Kalantidis et al., ECCV workshops 2016."""
    spatial, channel = crow_weights(x, a, b)
    return channel * (x * spatial[:, None]).sum(dim=(2, 3))


class GeM(nn.Module):
    """`gem`, after `regional_gem` where `regional`; `learn`: the exponent is a parameter, taken as 1 (mean) to 6."""

    def __init__(self, p: float = 3.0, *, learn: bool = False, regional: bool = False, eps: float = 1e-6):
        super().__init__()
        if learn and not 1 <= p <= 6:
            raise ValueError(f"a learned exponent p starts at {p}; 1 to 6 is wanted (3 is usual)")
        self.p = nn.Parameter(torch.tensor(float(p))) if learn else float(p)
        self.regional, self.eps = regional, eps

    def forward(self, x: Tensor) -> Tensor:
        x = regional_gem(x) if self.regional else x
        return gem(x, self.p.clamp(1, 6) if isinstance(self.p, Tensor) else self.p, self.eps)


def combine_scales(descriptors: Tensor, method: str = "mean", *, p: float = math.inf, normalize: bool = True) -> Tensor:
    """One unit descriptor (B, D) from those of S test-time scales (S, B, D).

    `mean`: each scale L2-normalised (unless `normalize=False`), averaged, L2-normalised. `scale-gem`: SuperGlobal's
    (Shao et al. 2023): for p = ∞ the largest entry over the L2-normalised scales; for finite p a generalised mean of
    the raw values above the smallest one in the whole stack, which therefore depends on the batch.
    """
    if method == "mean":
        pooled = (F.normalize(descriptors, dim=2) if normalize else descriptors).mean(dim=0)
    elif method == "scale-gem" and math.isinf(p):
        pooled = F.normalize(descriptors, dim=2).amax(dim=0)
    elif method == "scale-gem":
        lowest = descriptors.min()
        pooled = (descriptors - lowest).pow(p).mean(dim=0).pow(1 / p) + lowest
    else:
        raise ValueError(f"method is {method!r}; 'mean' or 'scale-gem' is wanted")
    return F.normalize(pooled, dim=1)
