"""On a GPU: descriptors by the networks of profiles/paper.yaml, and the graph of a million random descriptors.

    python benchmarks/gpu.py [--pictures 500] [--n 1000000] [--dimension 2048] [--k 10] [--rows 1000000]

It prints seconds and the largest memory of the GPU as it goes. The library's exact `knn` stands beside plain torch; it
makes only `--rows` rows of the graph, and its seconds are multiplied up. Neighbours of random descriptors stand as
close together as they ever do, so plain torch, which rounds its products, finds the fewest of them here.
"""

import argparse
import itertools
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ssr_lib import search
from ssr_lib.extract import describe
from ssr_lib.images import PRESETS
from ssr_lib.network import RetrievalNet
from ssr_lib.rerank import augment_database
from ssr_lib.search.prepared import blocks

NUMBERS = 1 << 29  # products that plain torch holds at once: 2 GB of float32
OPTIONS = {"plain": {}, "product": {"place": "last", "mid_channels": 256, "window": 7}}
search.WITH_FAISS = False  # it may be missing on such a machine; torch finds the same neighbours


def measure(name, function, factor=1.0, count=np.nan):
    """The result of a call, and its seconds times a factor, printed with things a second and the largest memory."""
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    start = time.perf_counter()
    result = function()
    torch.cuda.synchronize()
    seconds, memory = factor * (time.perf_counter() - start), torch.cuda.max_memory_allocated() / 2**30
    print(f"{name:30} {seconds:8.1f} s   {memory:.1f} GB   {count / seconds:.1f} a second", flush=True)
    return result


def compare_precisions(n, folder):
    """How fast n pictures are described, decoding included: in float32, with PyTorch's default, and in bfloat16."""
    rng = np.random.default_rng(0)
    for i in range(n):
        picture = Image.fromarray(rng.integers(0, 256, (192, 256, 3), np.uint8)).resize((1024, 768))
        (picture if i % 3 else picture.transpose(Image.Transpose.ROTATE_90)).save(folder / f"{i}.jpg")
    for backbone, head in itertools.product(("resnet50", "resnet101"), OPTIONS):
        net = RetrievalNet(backbone, head, OPTIONS[head], descriptor_dim=2048, pretrained="none")
        for name, conv in (("float32", "ieee"), ("TF32", "tf32"), ("bfloat16", "tf32")):
            torch.backends.cudnn.conv.fp32_precision = conv  # PyTorch has TF32 in convolutions, not in products
            how = {"device": "cuda", "dtype": torch.bfloat16 if name == "bfloat16" else torch.float32, "batch_size": 8}
            run = partial(describe, net, preprocess=PRESETS["senet"], **how)
            run([folder / "0.jpg", folder / "1.jpg"])  # loads the kernels
            measure(f"{backbone} {head}, {name}", partial(run, sorted(folder.iterdir())), count=n)


def plain_graph(x, k):
    """Scores and ids (N, k) of the other rows with the largest products, in the dtype of x."""
    found = []
    for rows in blocks(len(x), NUMBERS // len(x)):
        products = x[rows] @ x.T  # (n, N)
        products.diagonal(rows.start).fill_(-torch.inf)
        found.append(products.topk(k, dim=1))
    return torch.cat([part.values for part in found]), torch.cat([part.indices for part in found])


def main():
    parser = argparse.ArgumentParser()
    for name, default in {"--n": 1_000_000, "--dimension": 2048, "--k": 10, "--rows": None, "--pictures": 500}.items():
        parser.add_argument(name, type=int, default=default)
    args = parser.parse_args()
    n, k = args.n, args.k
    print(torch.cuda.get_device_name(), f"torch {torch.__version__}")
    with tempfile.TemporaryDirectory() as folder:
        compare_precisions(args.pictures, Path(folder))
    x = torch.randn((n, args.dimension), device="cuda", generator=torch.Generator("cuda").manual_seed(0))
    x, own = x.div_(x.norm(dim=1, keepdim=True)), torch.arange(args.rows or n, device="cuda")
    ours = partial(search.knn, x[: len(own)], x, k, exclude=own)
    exact = measure(f"search.knn, {len(own):,} rows", ours, n / len(own), n)
    for name, precision in (("float16", "highest"), ("TF32", "high"), ("float32", "highest")):
        torch.set_float32_matmul_precision(precision)
        rows = x.half() if name == "float16" else x
        plain_graph(rows[:2000], k)  # loads the kernels
        found = measure(f"plain, {name}", partial(plain_graph, rows, k), count=n)
        same = (found[1][: len(own), :, None] == exact[1][:, None]).any(dim=1).double().mean()
        print(f"    {same:.4%} of the exact neighbours", flush=True)
    measure("augment_database", lambda: augment_database(x, k, 0.5, neighbours=found), count=n)


if __name__ == "__main__":
    main()
