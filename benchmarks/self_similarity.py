"""Speed of the self-similarity head, as ratios to the plain way in the same process.

    python benchmarks/self_similarity.py [threads]

Plain: every product in one tensor by `unfold`, then the convolutions over (u, v), differentiated by autograd. Bound: the
multiply-adds that cannot be saved, at the speed of a large convolution on this machine. Times are CPU seconds of this
process (a busy machine disturbs them least), the best of several runs.
"""

import sys
import time

import torch
import torch.nn.functional as F
from search import report
from torch import nn

from ssr_lib.heads import neighbour, product


def best_cpu_seconds(run, repeats=3):
    run()
    times = []
    for _ in range(repeats):
        start = time.process_time()
        run()
        times.append(time.process_time() - start)
    return min(times)


def plain_encode(head, f):
    """Steps 2 and 3 as they are written down, F (B, c, H, W) → the same shape."""
    (batch, channels, height, width), window = f.shape, head.window
    neighbours = F.unfold(f, window, padding=window // 2).view(batch, channels, window, window, height, width)
    related = neighbours * f[:, :, None, None] if isinstance(head, product.Head) else neighbours
    z = related.clamp(min=0).permute(0, 4, 5, 1, 2, 3).reshape(-1, channels, window, window)
    for convolution, norm, _ in head.encoder:
        z = norm(F.conv2d(z, convolution.weight, convolution.bias)).relu()
    return z.reshape(batch, height, width, channels).permute(0, 3, 1, 2)


def training_seconds(kind, mid_channels, window, plain=False):
    """Forward and backward of the embedding on a training batch of stored maps."""
    x = torch.rand(64, 112, 10, 10).to(memory_format=torch.channels_last)
    head = kind.Head((112, 112, 112), mid_channels=mid_channels, window=window, initial_gain=1)
    head.encode = (lambda f: plain_encode(head, f)) if plain else head.encode
    return best_cpu_seconds(lambda: head.embed(x).sum().backward())


@torch.inference_mode()
def inference_seconds(plain=False):
    """The published size on the map of a 768 × 1024 picture."""
    x = torch.rand(1, 2048, 24, 32)
    head = product.Head((2048, 2048, 2048), mid_channels=256, window=7, place="last").eval()
    head.encode = (lambda f: plain_encode(head, f)) if plain else head.encode
    return best_cpu_seconds(lambda: head(x, x, nn.Identity()))


@torch.inference_mode()
def inference_bound():
    """Seconds of as many multiply-adds in one large 3 × 3 convolution: encoder, reduce, expand and feed-forward."""
    c, channels = 256, 2048
    multiply_adds = 24 * 32 * (9 * (25 + 9 + 1) * c * c + 2 * channels * c + 2 * channels * channels)
    x, weight = (torch.rand(*size).to(memory_format=torch.channels_last) for size in ((1, c, 58, 58), (c, c, 3, 3)))
    return best_cpu_seconds(lambda: F.conv2d(x, weight)) * multiply_adds / (56 * 56 * 9 * c * c)


def main():
    torch.set_num_threads(int(sys.argv[1]) if len(sys.argv) > 1 else 1)
    for c, window in ((32, 5), (64, 7)):
        for kind in (product, neighbour):
            name = f"training, {kind.__name__.split('.')[-1]}, c {c}, window {window}"
            report(name, training_seconds(kind, c, window), training_seconds(kind, c, window, plain=True))
    ours = inference_seconds()
    report("inference, c 256, window 7, 24 × 32 map", ours, inference_seconds(plain=True))
    report("inference, of what cannot be saved", ours, inference_bound(), against="bound")


if __name__ == "__main__":
    main()
