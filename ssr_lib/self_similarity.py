"""The self-similarity embedding, its two controls, and a training-free descriptor of the same structure.

Source: self-similarity encoding of Lee et al., CVPR 2023; the statement of the method is docs/method.md.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

RELATIONS = ("product", "neighbour", "conv")
FUSIONS = ("add", "concat", "gate", "only")
CHUNK_ELEMENTS = 2**24  # products held at once at inference: 64 MiB in float32


def check_window(window: int) -> int:
    if not isinstance(window, int) or window < 3 or window % 2 == 0:
        raise ValueError(f"window is {window!r}; an odd whole number of at least 3 is wanted (7 is usual)")
    return window


def neighbourhoods(padded: Tensor, window: int) -> Tensor:
    """View of every place's window: (B, H + window − 1, W + window − 1, C) → (B, H, W, U, V, C)."""
    return padded.unfold(1, window, 1).unfold(2, window, 1).permute(0, 1, 2, 4, 5, 3)


class Products(torch.autograd.Function):
    """Clamped products of each place with its window, padded F (B, H + 2·half, W + 2·half, C) → (B, H, W, U, V, C).

    The gradient is written out because autograd's would hold and sweep several more tensors of the full size.
    """

    @staticmethod
    def forward(ctx, padded: Tensor, window: int) -> Tensor:
        products = (neighbourhoods(padded, window) * inner(padded, window)[:, :, :, None, None]).relu_()
        ctx.save_for_backward(padded, products)
        ctx.window = window
        return products

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        result = torch.zeros_like(ctx.saved_tensors[0])
        images = 16  # a few at a time, so that the masked gradient stays in cache
        for parts in zip(*(t.split(images) for t in (result, gradient, *ctx.saved_tensors)), strict=True):
            total, upstream, padded, products = parts
            masked = torch.where(products > 0, upstream, 0)
            centres, height, width = inner(padded, ctx.window), *products.shape[1:3]
            for u in range(ctx.window):
                for v in range(ctx.window):
                    there = (slice(None), slice(u, u + height), slice(v, v + width))
                    total[there].addcmul_(masked[:, :, :, u, v], centres)
                    inner(total, ctx.window).addcmul_(masked[:, :, :, u, v], padded[there])
        return result, None


def inner(padded: Tensor, window: int) -> Tensor:
    """The map without its padding, (B, H + 2·half, W + 2·half, C) → (B, H, W, C), a view."""
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
    cosines = [
        (f * padded[:, :, u : u + height, v : v + width]).sum(dim=1) for u in range(window) for v in range(window)
    ]
    return torch.stack(cosines, dim=-1).unflatten(-1, (window, window))


def structural_descriptor(x: Tensor, window: int = 7) -> Tensor:
    """Training-free descriptor of layout: second-order statistics of the cosines, (B, C, H, W) → (B, D) unit rows.

    For every pair of offsets the covariance, over the places where both stay on the map, of their cosines; with the
    mean of every offset: D = n(n + 1)/2 + n for the n = window² − 1 offsets but the middle one. Rotating the channels,
    which changes what a place looks like, changes nothing.
    """
    offsets = [i for i in range(window * window) if i != window * window // 2]
    cosines = self_similarity_map(x, window).flatten(3)[..., offsets].flatten(1, 2)  # (B, H·W, n)
    inside = self_similarity_map(torch.ones_like(x[:1, :1]), window).flatten(3)[..., offsets].flatten(1, 2)
    mean = cosines.sum(dim=1) / inside.sum(dim=1).clamp(min=1)  # (B, n)
    centred = (cosines - mean[:, None]) * inside
    covariance = centred.transpose(1, 2) @ centred / (inside.transpose(1, 2) @ inside).clamp(min=1)  # (B, n, n)
    rows, columns = torch.triu_indices(len(offsets), len(offsets), device=x.device)
    second = F.normalize(signed_root(covariance[:, rows, columns]), dim=1)
    first = F.normalize(mean - mean.mean(dim=1, keepdim=True), dim=1)
    return F.normalize(torch.cat([second, first], dim=1), dim=1)


def signed_root(x: Tensor) -> Tensor:
    """sign(x)·√|x|: keeps few large entries from deciding every similarity."""
    return x.sign() * x.abs().sqrt()


def feed_forward_layers(channels: int) -> nn.Sequential:
    """Two 1 × 1 convolutions with a ReLU between, no residual."""
    return nn.Sequential(nn.Conv2d(channels, channels, 1), nn.ReLU(), nn.Conv2d(channels, channels, 1))


class SelfSimilarity(nn.Module):
    """X (B, C, H, W) → a map of the same shape that knows how each place resembles its neighbourhood.

    1. reduce to `mid_channels` c and L2-normalise: F. 2. relate: channel-wise products of each place with its
    `window` × `window` neighbourhood, negative ones set to zero. 3. encode them by unpadded 3 × 3 convolutions over the
    offsets (u, v) until one vector is left. 4. expand to C: S. 5. `fusion`: "add" X + S, "concat" a 1 × 1 convolution
    of [X, S], "gate" X·sigmoid(S), "only" S. 6. `feed_forward`: two 1 × 1 convolutions with a ReLU between.

    `relation`: "product"; the controls "neighbour" (the neighbourhood without the product: same parameters and
    arithmetic, no self-similarity) and "conv" (as many parameters as padded convolutions on F, a twelfth of the work).
    `product_scale` multiplies the products (as √scale on F, so that the controls get the same scale). 1 is the
    published arithmetic, needed by published weights; there a product is about 1/c, and at c ≥ 128 the first batch
    norm divides by its eps instead of by the signal. `product_scale=mid_channels` makes them about 1 at any c.
    `initial_gain`: gain of the last batch norm at the start; 0 starts "add" and "concat" as the identity.
    `encoder_dtype`: "float32", or "bfloat16" for autocast of steps 2 and 3. Source: Lee et al., CVPR 2023.
    """

    def __init__(
        self,
        in_channels: int,
        mid_channels: int = 256,
        window: int = 7,
        *,
        relation: str = "product",
        fusion: str = "add",
        feed_forward: bool = True,
        product_scale: float = 1.0,
        initial_gain: float = 1.0,
        encoder_dtype: str = "float32",
    ):
        super().__init__()
        check_window(window)
        for value, legal, what in ((relation, RELATIONS, "relation"), (fusion, FUSIONS, "fusion")):
            if value not in legal:
                raise ValueError(f"{what} is {value!r}; one of {', '.join(legal)} is wanted")
        if encoder_dtype not in ("float32", "bfloat16"):
            raise ValueError(f"encoder_dtype is {encoder_dtype!r}; 'float32' or 'bfloat16' is wanted")
        if fusion == "only" and initial_gain == 0:
            raise ValueError("fusion 'only' with initial_gain 0 would start as a map of zeros that never learns; use 1")
        self.window, self.relation, self.fusion = window, relation, fusion
        self.product_scale, self.encoder_dtype = float(product_scale), encoder_dtype
        self.reduce = nn.Conv2d(in_channels, mid_channels, 1, bias=False)
        padding = 1 if relation == "conv" else 0
        self.encoder = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(mid_channels, mid_channels, 3, padding=padding),
                nn.BatchNorm2d(mid_channels),
                nn.ReLU(inplace=True),
            )
            for _ in range(window // 2)
        )
        self.expand = nn.Sequential(nn.Conv2d(mid_channels, in_channels, 1), nn.BatchNorm2d(in_channels))
        nn.init.constant_(self.expand[1].weight, initial_gain)
        if fusion == "concat":
            self.join = nn.Conv2d(2 * in_channels, in_channels, 1)
            with torch.no_grad():  # starts as X plus a random mixture of S: what follows was trained on X
                self.join.weight[:, :in_channels] = torch.eye(in_channels)[:, :, None, None]
                self.join.bias.zero_()
        if feed_forward:
            self.feed_forward = feed_forward_layers(in_channels)

    def forward(self, x: Tensor) -> Tensor:
        y = self.fuse(x, self.embed(x))
        return self.feed_forward(y) if hasattr(self, "feed_forward") else y

    def embed(self, x: Tensor) -> Tensor:
        """The dense self-similarity feature map S, same shape as X (steps 1 to 4)."""
        f = F.normalize(self.reduce(x), dim=1, eps=1e-12)  # (B, c, H, W)
        if self.product_scale != 1:
            f = f * math.sqrt(self.product_scale)
        narrow = self.encoder_dtype == "bfloat16"
        with torch.autocast(x.device.type, torch.bfloat16, enabled=narrow):
            encoded = self.encode(f if narrow else f.to(self.reduce.weight.dtype))  # not narrowed by an outer autocast
        return self.expand(encoded.to(x.dtype))  # (B, C, H, W)

    def encode(self, f: Tensor) -> Tensor:
        """F (B, c, H, W) → its encoded relations, same shape (steps 2 and 3)."""
        if self.relation == "conv":
            return nn.Sequential(*self.encoder)(f)
        half, height = self.window // 2, f.shape[2]
        padded = F.pad(f, (half, half, half, half)).permute(0, 2, 3, 1)  # (B, H + 2·half, W + 2·half, c)
        padded = (padded.bfloat16() if self.encoder_dtype == "bfloat16" else padded).contiguous()
        if self.relation == "neighbour":
            return self.encode_shared(padded, f.shape[2:])
        if self.training:  # batch norm needs every place at once
            return self.encode_products(padded)
        rows = max(1, CHUNK_ELEMENTS // (f[:, :, 0].numel() * self.window**2))
        slabs = [padded[:, top : top + rows + 2 * half] for top in range(0, height, rows)]
        return torch.cat([self.encode_products(slab) for slab in slabs], dim=2)

    def encode_products(self, padded: Tensor) -> Tensor:
        """Padded F (B, H + 2·half, W + 2·half, c) → encoded products (B, c, H, W)."""
        products = Products.apply(padded, self.window)  # (B, H, W, U, V, c)
        z = products.flatten(0, 2).permute(0, 3, 1, 2)  # (B·H·W, c, U, V): little images, channels last in memory
        for block in self.encoder[:-1]:
            z = block(z)  # U and V shrink by 2
        convolution, norm, relu = self.encoder[-1]  # 3 × 3 → 1 × 1 is one matrix product
        z = F.linear(to_rows(z), to_rows(convolution.weight), convolution.bias)  # (B·H·W, 9·c) → (B·H·W, c)
        z = relu(norm(z[:, :, None, None]))
        return z.reshape(*products.shape[:3], -1).permute(0, 3, 1, 2)

    def encode_shared(self, padded: Tensor, size: tuple[int, int]) -> Tensor:
        """The "neighbour" control: as `encode_products` without the product, the same numbers for an eighth of the work.

        Without the product a window's content does not depend on the place it surrounds, so overlapping windows share
        their convolutions: those of the padded map. Batch norm counts every position as often as windows contain it.
        """
        z = padded.relu().permute(0, 3, 1, 2)  # (B, c, H + 2·half, W + 2·half)
        for convolution, norm, relu in self.encoder:
            z = convolution(z)
            left = z.shape[2] - size[0] + 1  # side of the window after this convolution
            z = relu(shared_batch_norm(z, norm, repeats(size[0], left), repeats(size[1], left)))
        return z

    def fuse(self, x: Tensor, s: Tensor) -> Tensor:
        if self.fusion == "add":
            return x + s
        if self.fusion == "concat":
            return self.join(torch.cat([x, s], dim=1))
        return x * s.sigmoid() if self.fusion == "gate" else s


def to_rows(x: Tensor) -> Tensor:
    """(N, C, U, V) → (N, U·V·C); no copy where channels are last in memory."""
    return x.permute(0, 2, 3, 1).flatten(1)


def repeats(length: int, window: int) -> Tensor:
    """How many of `length` windows side by side contain each of the length + window − 1 positions."""
    positions = torch.arange(length + window - 1)
    return torch.minimum((positions + 1).clamp(max=min(length, window)), length + window - 1 - positions)


def shared_batch_norm(z: Tensor, norm: nn.BatchNorm2d, rows: Tensor, columns: Tensor) -> Tensor:
    """`norm` of z (B, C, H, W) as if row y occurred rows[y] times and column x columns[x] times."""
    if not norm.training:
        return norm(z)
    z = z.float() if z.dtype == torch.bfloat16 else z
    weights = torch.outer(rows, columns).to(z)  # (H, W)
    count = float(weights.sum()) * len(z)
    mean = (z * weights).sum(dim=(0, 2, 3)) / count  # (C,)
    centred = z - mean[:, None, None]
    variance = (centred.square() * weights).sum(dim=(0, 2, 3)) / count
    with torch.no_grad():
        norm.num_batches_tracked += 1
        norm.running_mean.lerp_(mean, norm.momentum)
        norm.running_var.lerp_(variance * count / (count - 1), norm.momentum)
    return centred * (norm.weight * (variance + norm.eps).rsqrt())[:, None, None] + norm.bias[:, None, None]
