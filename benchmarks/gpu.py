"""The k-NN graph of random unit descriptors on a GPU: the library's exact `knn` beside plain torch; augmentation.

    python benchmarks/gpu.py [--n 1000000] [--dimension 2048] [--k 10] [--rows 1000000] [--device cuda]

It needs torch and NumPy beside `ssr_lib`, and prints seconds and the largest memory of the GPU as it goes. `--rows`:
the library makes only so many rows of the graph, and its seconds are multiplied up. Neighbours of random descriptors
stand as close together as they ever do, so plain torch, which rounds its products, finds the fewest of them here.
"""

import argparse
import time

import torch

from ssr_lib import search
from ssr_lib.rerank import augment_database, global_rerank
from ssr_lib.search.prepared import blocks

NUMBERS = 1 << 29  # products that plain torch holds at once: 2 GB of float32
search.WITH_FAISS = False  # it may be missing on such a machine; torch finds the same neighbours on the CPU, too


def draw(n, dimension, device):
    """Unit rows (n, D) float32."""
    x = torch.randn((n, dimension), device=device, generator=torch.Generator(device).manual_seed(0))
    return x.div_(x.norm(dim=1, keepdim=True))


def plain_graph(x, k):
    """Scores and ids (N, k) of the other rows with the largest products, in the dtype of x."""
    found = []
    for rows in blocks(len(x), NUMBERS // len(x)):
        products = x[rows] @ x.T  # (n, N)
        products.diagonal(rows.start).fill_(-torch.inf)
        found.append(products.topk(k, dim=1))
    return torch.cat([part.values for part in found]), torch.cat([part.indices for part in found])


def measure(name, function, device, factor=1.0):
    """The result of a call; printed are its seconds, times a factor, and the largest memory of a GPU meanwhile."""
    on_gpu = device.type == "cuda"
    if on_gpu:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    start = time.perf_counter()
    result = function()
    if on_gpu:
        torch.cuda.synchronize(device)
    seconds = factor * (time.perf_counter() - start)
    memory = f"{torch.cuda.max_memory_allocated(device) / 2**30:.1f} GB" if on_gpu else "memory of a GPU only"
    print(f"{name:24} {seconds:8.1f} s   {memory}", flush=True)
    return result


def compare_devices(device, n=2000, dimension=512, k=10):
    """Print which share of the places in the library's lists is the same on `device` and on the CPU."""
    lists = []
    for x in (draw(n, dimension, "cpu").to(device), draw(n, dimension, "cpu")):
        own = torch.arange(n, device=x.device)
        reranked = global_rerank(x[:70], x, k, 0.5, query_ids=own[:70])
        lists.append((search.rank(x, x), search.knn(x, x, k, exclude=own)[1], reranked.ranks))
    for name, here, there in zip(("rank", "knn", "global_rerank"), *lists, strict=True):
        print(f"{name:14} {n:,} x {dimension}: {(here.cpu() == there).double().mean():.4%} of places as on the CPU")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", type=torch.device, default="cuda")
    for name, default in {"--n": 1_000_000, "--dimension": 2048, "--k": 10, "--rows": None}.items():
        parser.add_argument(name, type=int, default=default)
    args = parser.parse_args()
    device, k, n = args.device, args.k, args.n
    print(torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU", f"torch {torch.__version__}")
    compare_devices(device)
    x, own = draw(n, args.dimension, device), torch.arange(args.rows or n, device=device)
    print(f"graph of {n:,} x {args.dimension:,}, k = {k}: {2e-12 * n**2 * args.dimension:,.1f} TFLOP", flush=True)
    told = f"search.knn, {len(own):,} rows"
    exact = measure(told, lambda: search.knn(x[: len(own)], x, k, exclude=own), device, n / len(own))
    for name, precision in (("float16", "highest"), ("TF32", "high"), ("float32", "highest")):
        torch.set_float32_matmul_precision(precision)
        rows = x.half() if name == "float16" else x
        plain_graph(rows[:2000], k)  # loads the kernels
        found = measure(f"plain, {name}", lambda rows=rows: plain_graph(rows, k), device)
        same = (found[1][: len(own), :, None] == exact[1][:, None]).any(dim=1).double().mean()
        print(f"    {same:.4%} of the exact neighbours", flush=True)
    measure("augment_database", lambda: augment_database(x, k, 0.5, neighbours=found), device)


if __name__ == "__main__":
    main()
