"""Speed of the self-similarity block and of head training, as ratios to the straightforward way in the same process.

python benchmarks/self_similarity.py [threads]

Straightforward: every product in one tensor by `unfold`, then the convolutions over (u, v), differentiated by autograd.
Times are CPU seconds of this process (a busy machine disturbs them least), the best of several runs.
"""

import sys
import time

import torch
import torch.nn.functional as F
from search import report
from torch import nn

from ssr_lib.depthwise import SmallMapDepthwise
from ssr_lib.network import RetrievalNet
from ssr_lib.self_similarity import SelfSimilarity


def best_cpu_seconds(run, repeats=3):
    run()
    times = []
    for _ in range(repeats):
        start = time.process_time()
        run()
        times.append(time.process_time() - start)
    return min(times)


def straightforward_encode(net, f):
    """Steps 2 and 3 as they are written down, F (B, c, H, W) → the same shape."""
    (batch, channels, height, width), window = f.shape, net.window
    neighbours = F.unfold(f, window, padding=window // 2).view(batch, channels, window, window, height, width)
    related = neighbours * f[:, :, None, None] if net.relation == "product" else neighbours
    z = related.clamp(min=0).permute(0, 4, 5, 1, 2, 3).reshape(-1, channels, window, window)
    for convolution, norm, _ in net.encoder:
        z = norm(F.conv2d(z, convolution.weight, convolution.bias)).relu()
    return z.reshape(batch, height, width, channels).permute(0, 3, 1, 2)


def block_step(mid_channels, window, straightforward=False, **options):
    """Forward and backward of the block on a training batch of cached maps."""
    x = torch.rand(64, 112, 10, 10)
    net = SelfSimilarity(112, mid_channels, window, feed_forward=False, **options)
    if straightforward:
        net.encode = lambda f: straightforward_encode(net, f)
    return lambda: net(x).sum().backward()


def block_inference(straightforward=False):
    """The published size on the map of a 768 × 1024 picture."""
    x = torch.rand(1, 2048, 24, 32)
    net = SelfSimilarity(2048, 256, 7).eval()
    if straightforward:
        net.encode = lambda f: straightforward_encode(net, f)
    return torch.inference_mode()(lambda: net(x))


def head_step(variant, contiguous=False, pytorch=False):
    """One step of head training without the optimiser: tail, module, pooling, whitening; `pytorch`: its depthwise layers."""
    net = RetrievalNet("tf_efficientnet_lite0", variant, mid_channels=32, window=5, descriptor_dim=256).train()
    for module in net.modules() if pytorch else ():
        if isinstance(module, SmallMapDepthwise):
            module.__class__ = nn.Conv2d
    x = torch.rand(64, net.trunk_channels, 10, 10)
    if contiguous:
        net.to(memory_format=torch.contiguous_format)
    return lambda: net.head(x).sum().backward()


def main():
    torch.set_num_threads(int(sys.argv[1]) if len(sys.argv) > 1 else 1)
    for c, window in ((32, 5), (64, 7)):
        for relation in ("product", "neighbour"):
            plain = best_cpu_seconds(block_step(c, window, True, relation=relation))
            report(
                f"{relation}, c {c}, window {window}", best_cpu_seconds(block_step(c, window, relation=relation)), plain
            )
            if relation == "product":
                bfloat16 = best_cpu_seconds(block_step(c, window, encoder_dtype="bfloat16"))
                report(f"product in bfloat16, c {c}, window {window}", bfloat16, plain)
    ours, plain = best_cpu_seconds(block_inference()), best_cpu_seconds(block_inference(True))
    report("inference, c 256, window 7, 24 × 32 map", ours, plain)
    plain = best_cpu_seconds(head_step("plain", contiguous=True))
    for variant in ("plain", "self-similarity", "neighbour", "conv"):  # plain: no module, channels first in memory
        report(f"head training, {variant}", best_cpu_seconds(head_step(variant)), plain)
    report(
        "head training, plain", best_cpu_seconds(head_step("plain")), best_cpu_seconds(head_step("plain", pytorch=True))
    )


if __name__ == "__main__":
    main()
