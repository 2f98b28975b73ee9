"""`ssr search`: one's own photographs; and how the command line names networks, shared with `ssr evaluate`."""

from __future__ import annotations

import dataclasses
import json
import sys
from argparse import Namespace
from pathlib import Path

import numpy as np
import torch

from ssr_lib.datasets.folder import count_unsupported, read_folder
from ssr_lib.extract import describe, pick_device
from ssr_lib.gallery import Gallery, index_folder
from ssr_lib.images import PRESETS, Preprocess, load_image
from ssr_lib.network import RetrievalNet
from ssr_lib.rerank import global_rerank
from ssr_lib.rerank.global_rerank import check_number
from ssr_lib.search import knn
from ssr_lib.weights import load_checkpoint, stored_preprocess

PACKAGED = {f"lite{i}": f"tf_efficientnet_lite{i}" for i in range(3)}
DEFAULT_K = 2  # one's own folder mostly holds one to three pictures of a thing: more neighbours are wrong ones


def note(text: str) -> None:
    print(f"ssr: {text}", file=sys.stderr)


def load_net(args: Namespace) -> tuple[RetrievalNet, Preprocess]:
    """The network that `--model` names, and the preprocessing it wants unless `--preprocess`, `--size` say otherwise."""
    if args.model in PACKAGED:
        net, preprocess = RetrievalNet(PACKAGED[args.model], "plain", pretrained="package"), PRESETS["lite"]
    elif Path(args.model).suffix or Path(args.model).exists():
        net, preprocess = load_checkpoint(args.model), stored_preprocess(args.model)
    else:
        raise ValueError(f"--model {args.model}: neither {', '.join(PACKAGED)} nor a checkpoint file")
    if args.preprocess is not None:
        if args.preprocess not in PRESETS:
            raise ValueError(f"--preprocess {args.preprocess}: one of {', '.join(PRESETS)} is wanted")
        preprocess = PRESETS[args.preprocess]
    if preprocess is None:
        raise ValueError(
            f"{args.model} does not say how its pictures are prepared; name one of --preprocess {', '.join(PRESETS)}"
        )
    if args.size is not None:
        preprocess = dataclasses.replace(preprocess, size_rule="longest", size=args.size)
    return net.eval(), preprocess


def extraction_options(args: Namespace) -> dict:
    if args.batch_size < 1 or (args.workers is not None and args.workers < 1):
        raise ValueError("--batch-size and --workers must be 1 or more")
    return {
        "device": pick_device(args.device),
        "dtype": getattr(torch, args.dtype),
        "batch_size": args.batch_size,
        "workers": args.workers,
        "progress": sys.stderr.isatty(),
    }


def check_k(k: int | None, available: int, default: int | None = None, *, among: str = "database") -> int:
    """`--k`, or its default where it has room. Raises `ValueError` for more than the `available` neighbours."""
    if available < 1:
        raise ValueError("the database holds a single picture; re-ranking wants two or more")
    if k is None:
        return min(default or DEFAULT_K, available)
    if not 1 <= k <= available:
        raise ValueError(f"--k {k}: each picture has {available} others in the {among}; 1 to {available} is wanted")
    return k


# ---- ssr search


def search(args: Namespace) -> int:
    """Rank the pictures of a folder by likeness to one; print the list before and after re-ranking."""
    if args.top < 1:
        raise ValueError(f"--top {args.top}: 1 or more is wanted")
    if args.out and not Path(args.out).absolute().parent.is_dir():
        raise ValueError(f"--out {args.out}: there is no folder {Path(args.out).absolute().parent}")
    if args.out and Path(args.out).suffix != ".png":
        raise ValueError(f"--out {args.out}: a name that ends in .png is wanted")
    # all of it before the gallery is indexed, which can take long
    check_number(args.alpha, "--alpha")
    load_image(args.photo)
    if args.k is not None:  # and again when it is known how many of the pictures can be used
        check_k(args.k, len(read_folder(args.gallery)) - 1)
    options = extraction_options(args)
    net, preprocess = load_net(args)
    gallery = index_folder(net, args.gallery, preprocess, args.index, **options)
    for reason in gallery.unreadable.values():
        note(f"left out: {reason}")
    for extension, count in count_unsupported(args.gallery).items():
        note(f"left out: {count} files ending in {extension}; convert them to JPEG or PNG first")
    own = _own_id(args.photo, gallery)
    others = len(gallery.files) - (own is not None)
    if others < 2:
        raise ValueError(f"{args.gallery} holds {others} usable pictures besides the query; two or more are wanted")
    k = check_k(args.k, len(gallery.files) - 1)
    options.pop("progress")
    query = describe(net, [args.photo], preprocess, **options)  # (1, D)
    query_ids = None if own is None else np.array([own])
    scores, ids = knn(query, gallery.descriptors, others, exclude=query_ids)
    after = global_rerank(query, gallery.descriptors, k, args.alpha, query_ids=query_ids)
    before_list = _ranked_list(gallery.files, ids[0], scores[0], args.top)
    after_list = _ranked_list(gallery.files, after.ranks[0], after.scores[0], args.top)
    place_before = {gallery.files[i]: place for place, i in enumerate(ids[0], start=1)}
    for entry in after_list:
        entry["place_before"] = place_before[entry["file"]]
    if args.json:
        print(json.dumps({
            "query": args.photo, "gallery": args.gallery, "pictures": len(gallery.files), "newly_indexed": gallery.n_new,
            "unreadable": gallery.unreadable, "model": args.model, "preprocess": preprocess.to_dict(),
            "k": k, "alpha": args.alpha, "before": before_list, "after": after_list,
        }, indent=1))  # fmt: skip
    else:
        print(f"{len(gallery.files):,} pictures in {args.gallery}, {gallery.n_new:,} of them newly indexed")
        _print_list("before re-ranking", before_list)
        _print_list(f"after re-ranking (k = {k}, alpha = {args.alpha:g})", after_list)
    if args.out:  # last: the lists are there even where a picture has gone meanwhile
        _picture(args, gallery, before_list, after_list, k)
        if not args.json:
            print(f"\npicture: {args.out}")
    return 0


def _own_id(photo: str, gallery: Gallery) -> int | None:
    """The query's own number in the gallery, where it is one of its files."""
    here = Path(photo).resolve()
    return next((i for i, name in enumerate(gallery.files) if (gallery.folder / name).resolve() == here), None)


def _ranked_list(files: list[str], ids: np.ndarray, scores: np.ndarray, top: int) -> list[dict]:
    pairs = zip(ids[:top], scores[:top], strict=True)
    return [{"place": i, "file": files[j], "score": round(float(s), 6)} for i, (j, s) in enumerate(pairs, start=1)]


def _print_list(title: str, entries: list[dict]) -> None:
    print(f"\n{title}\n place   score  picture")
    for entry in entries:
        was = entry.get("place_before", entry["place"])
        moved = f"   (was {was})" if was != entry["place"] else ""
        print(f"{entry['place']:6d}  {entry['score']:.4f}  {entry['file']}{moved}")


def _picture(args: Namespace, gallery: Gallery, before: list[dict], after: list[dict], k: int) -> None:
    from ssr_lib.study.figures import ranked_lists

    titles = ("before re-ranking", f"after re-ranking (k = {k}, α = {args.alpha:g})")
    rows = [
        (
            title,
            [gallery.folder / e["file"] for e in entries],
            [e["score"] for e in entries],
            ["unknown"] * len(entries),
        )
        for title, entries in zip(titles, (before, after), strict=True)
    ]
    ranked_lists(Path(args.photo), rows, Path(args.out))
