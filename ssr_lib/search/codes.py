"""Exact scores of queries and images, each with the image's id in one whole number.

A unit row times 2^26, rounded, holds whole numbers. The products of two such rows add up to less than 2^53, where
float64 adds whole numbers exactly, in any order: no block, thread or kernel changes a bit. A *score* is that sum
rounded to 2^-36; it errs by at most 2·√D·2^-27, in practice by less than 1e-7. A score and an id make one int64, a
*code*, which sorts as (−score, id) does: equal images stand in the order of their ids, and sorting needs no index.
"""

import warnings

import torch

from ssr_lib.search.prepared import PIECE, Prepared, blocks

ROW_BITS, SCORE_BITS, ID_BITS = 26, 36, 26  # of a row's numbers; of a score and of an id in a code
IDS = (1 << ID_BITS) - 1  # a code & IDS is the id
OWN = 3 << 61  # codes of images that are left out begin here: they come last
NUMBERS = 1 << 24  # held at once: 128 MB of float64
TILE = 256  # dimensions of pairs worked on at once: so the rows of thousands of images stay in a cache


def whole_numbers(rows: torch.Tensor, norms: torch.Tensor, buffer: torch.Tensor | None = None) -> torch.Tensor:
    """float32 rows of these lengths at unit length times 2^26, rounded, float64, in the buffer where there is one."""
    out = torch.empty(rows.numel(), dtype=torch.float64, device=rows.device) if buffer is None else buffer
    out = out[: rows.numel()].view(rows.shape)
    return out.copy_(rows).mul_((2.0**ROW_BITS / norms)[:, None]).round_()


def as_codes(sums: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """Codes of sums of whole products, which are overwritten, and of the ids of their images."""
    scores = sums.mul_(2.0 ** (SCORE_BITS - 2 * ROW_BITS)).round_().long()
    return scores.mul_(-(1 << ID_BITS)).add_(ids)


def read_codes(codes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Scores, float64, −inf for an image that is left out, and ids."""
    scores = (codes >> ID_BITS).double().mul_(-(2.0**-SCORE_BITS))
    return scores.masked_fill_(codes >= OWN, -torch.inf), codes & IDS


def first_codes(codes: torch.Tensor, k: int) -> torch.Tensor:
    """The k smallest of each row, sorted; overwrites `codes`. On a CPU by NumPy's vector code: ten times faster."""
    if codes.device.type != "cpu":
        return codes.topk(k, dim=1, largest=False).values
    array = codes.numpy()
    if k < array.shape[1]:
        array.partition(k - 1, axis=1)
    array[:, :k].sort(axis=1)
    return codes[:, :k]


def all_codes(q: Prepared, d: Prepared, rows: slice | torch.Tensor, own: torch.Tensor | None = None) -> torch.Tensor:
    """Codes (n, N) of some queries with every database image, in the order of ids; `own` images come last."""
    left = whole_numbers(q.raw(rows), q.norms[rows])  # (n, D)
    sums, buffer = left.new_empty((len(left), len(d))), left.new_empty(max(PIECE, left.shape[1]))
    for part in blocks(len(d), PIECE // left.shape[1]):
        sums[:, part] = left @ whole_numbers(d.raw(part), d.norms[part], buffer).T
    codes = as_codes(sums, torch.arange(len(d), device=q.device))
    if own is not None:
        mine = own[rows, None]  # (n, 1)
        codes.scatter_(1, mine.clamp(min=0), torch.where(mine < 0, codes[:, :1], OWN + mine))
    return codes


def pair_codes(q: Prepared, d: Prepared, ids: torch.Tensor) -> torch.Tensor:
    """Codes (Q, m) of each query with its own list of images (Q, m)."""
    codes, dimension = torch.empty_like(ids), d.data.shape[1]
    numbers = TILE if d.device.type == "cpu" and len(d) * dimension <= NUMBERS else ids.shape[1] * dimension
    for rows in blocks(len(q), NUMBERS // numbers):  # numbers held for each query
        listed = ids[rows]  # (n, m)
        seen = torch.zeros(len(d), dtype=torch.bool, device=d.device).index_fill_(0, listed.flatten(), True)
        used, places = seen.nonzero()[:, 0], (seen.cumsum(0) - 1)[listed]
        left, right = q.raw(rows), d.raw(used)
        sums = torch.zeros(listed.shape, dtype=torch.float64, device=d.device)
        starts = torch.arange(0, listed.numel() + 1, listed.shape[1], device=d.device)
        with warnings.catch_warnings(action="ignore"):  # that such tensors are new in torch
            pairs = torch.sparse_csr_tensor(starts, places.flatten(), sums.flatten(), (len(left), len(used)))
        buffers = sums.new_empty(TILE * len(left)), sums.new_empty(TILE * len(right))
        for part in blocks(dimension, TILE):
            a = whole_numbers(left[:, part], q.norms[rows], buffers[0])
            b = whole_numbers(right[:, part], d.norms[used], buffers[1])
            if d.device.type == "cpu":
                torch.sparse.sampled_addmm(pairs, a, b.T, out=pairs)  # adds to `sums`
            else:
                sums += (a[:, None] * b[places]).sum(dim=2)
        codes[rows] = as_codes(sums, listed)
    return codes
