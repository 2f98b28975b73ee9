"""`ssr search`: one's own photographs; and how both commands on pictures name networks and re-rankers."""

from __future__ import annotations

import dataclasses
import inspect
import json
import sys
from argparse import Namespace
from pathlib import Path
from types import ModuleType

import numpy as np
import torch

from ssr_lib.commands.main import check_file, note, shown
from ssr_lib.datasets.folder import list_pictures
from ssr_lib.decode import load_image
from ssr_lib.extract import describe, pick_device
from ssr_lib.files import load_part
from ssr_lib.gallery import index_folder
from ssr_lib.images import PRESETS, Preprocess
from ssr_lib.network import RetrievalNet
from ssr_lib.rerank import first_ranking
from ssr_lib.search import prepare
from ssr_lib.weights import checkpoint_files, load_checkpoint, stored_preprocess

PACKAGED = {f"lite{i}": f"tf_efficientnet_lite{i}" for i in range(3)}
# Where a re-ranker has none of its own. k: a folder of one's own mostly holds one to three pictures of a thing;
# exponent: Radenovic et al. 2018.
DEFAULTS = {"k": 2, "alpha": 0.3, "exponent": 3.0}
LARGEST_ALPHA = 1000.0  # beyond, a picture's own feature has no part in the sum


def search(args: Namespace) -> None:
    """Rank the pictures of a folder by likeness to one; print the list before and after re-ranking."""
    # all of it before the gallery is indexed, which can take long
    if args.out and (Path(args.out).suffix != ".png" or not Path(args.out).absolute().parent.is_dir()):
        raise ValueError(f"--out {args.out}: a name that ends in .png is wanted, in a folder that is there")
    load_image(check_file(args.photo))
    reranker(args, max(1, len(list_pictures(args.gallery)[0]) - 1))
    options = extraction_options(args)
    net, preprocess = load_net(args)
    gallery = index_folder(net, args.gallery, preprocess, args.index, sys.stderr.isatty(), **options)
    for reason in (*gallery.unreadable.values(), *(f"{count} × {why}" for why, count in gallery.skipped.items())):
        note(f"left out: {reason}")
    own = gallery.find(args.photo)
    others = len(gallery.files) - (own is not None)
    if others < 2:
        raise ValueError(f"{args.gallery} holds {others} usable pictures besides the query; two or more are wanted")
    part, parameters = reranker(args, len(gallery.files) - 1)
    query = describe(net, [args.photo], preprocess, **options)  # (1, D)
    database = prepare(gallery.descriptors)
    first = first_ranking(query, database, None if own is None else np.array([own]))
    again = part.rerank(query, database, first, prepared=gallery.prepared(part, database, parameters), **parameters)
    place_before = {gallery.files[i]: place for place, i in enumerate(first.ids[0], start=1)}
    before = _ranked_list(gallery.files, first.ids[0], first.scores[0], args.top)
    after = _ranked_list(gallery.files, again.ranks[0], again.scores[0], args.top)
    for entry in after:
        entry["place_before"] = place_before[entry["file"]]
    told = ", ".join([args.rerank, *(f"{name} = {value:g}" for name, value in parameters.items())])
    lists = {"before re-ranking": before, f"after re-ranking ({told})": after}
    if args.json:
        print(json.dumps({
            "query": args.photo, "gallery": args.gallery, "pictures": len(gallery.files),
            "newly_indexed": gallery.n_new, "unreadable": gallery.unreadable, "skipped": gallery.skipped,
            "model": args.model or "lite0", "preprocess": preprocess.to_dict(),
            "rerank": args.rerank, **parameters, "before": before, "after": after,
        }, indent=1))  # fmt: skip
    else:
        print(f"{len(gallery.files):,} pictures in {shown(args.gallery)}, {gallery.n_new:,} of them newly indexed")
        _print_lists(lists)
    if args.out:  # last: the lists are there even where a picture has gone meanwhile
        from ssr_lib.study.figures import ranked_lists  # loads matplotlib

        rows = []
        for title, entries in lists.items():
            pictures = [gallery.folder / entry["file"] for entry in entries]
            rows.append((title, pictures, [entry["score"] for entry in entries], ["unknown"] * len(entries)))
        ranked_lists(Path(args.photo), rows, Path(args.out))
        if not args.json:
            print(f"\npicture: {shown(args.out)}")


def _ranked_list(files: list[str], ids: np.ndarray, scores: np.ndarray, top: int) -> list[dict]:
    pairs = zip(ids[:top], scores[:top], strict=True)
    return [{"place": i, "file": files[j], "score": round(float(s), 6)} for i, (j, s) in enumerate(pairs, start=1)]


def _print_lists(lists: dict[str, list[dict]]) -> None:
    for title, entries in lists.items():
        print(f"\n{title}\n place   score  picture")
        for entry in entries:
            was = entry.get("place_before", entry["place"])
            moved = f"   (was {was})" if was != entry["place"] else ""
            print(f"{entry['place']:6d}  {entry['score']:.4f}  {shown(entry['file'])}{moved}")


# ---- what `ssr evaluate` names alike


def load_net(args: Namespace) -> tuple[RetrievalNet, Preprocess]:
    """The network that `--model` names, and the preparation it wants unless `--preprocess`, `--size` say otherwise."""
    name = args.model or "lite0"
    if name in PACKAGED:
        net, preprocess = RetrievalNet(PACKAGED[name]), PRESETS["lite"]
    elif any(file.exists() for file in checkpoint_files(name)):
        net, preprocess = load_checkpoint(name), stored_preprocess(name)
    else:
        told = "a checkpoint's two files, .safetensors and .json; `ssr convert` makes them of published weights"
        raise ValueError(f"--model {name}: neither {', '.join(PACKAGED)} nor {told}")
    if args.preprocess is not None:
        preprocess = PRESETS.get(args.preprocess)
    if preprocess is None:
        told = f"{args.preprocess or name} does not say how pictures are prepared"
        raise ValueError(f"{told}; --preprocess takes one of {', '.join(PRESETS)}")
    if args.size is not None:
        preprocess = dataclasses.replace(preprocess, size_rule="longest", size=args.size)
    return net.eval(), preprocess


def extraction_options(args: Namespace) -> dict:
    """What describing takes beside network and preparation. Raises `ValueError` for a device that is not there."""
    device, dtype = pick_device(args.device or "cpu"), getattr(torch, args.dtype or "float32")
    return {"device": device, "dtype": dtype, "batch_size": args.batch_size or 16, "workers": args.workers}


def reranker(args: Namespace, others: int) -> tuple[ModuleType, dict[str, int | float]]:
    """The re-ranker that `--rerank` names, and its parameters where a picture has so many `others` to choose from."""
    if args.rerank == "ours":
        raise ValueError("--rerank ours is called gfr now, for global feature re-ranking")
    part, chosen = load_part(args.rerank, "rerank"), {}
    if getattr(part, "NEEDS", "descriptors") != "descriptors":
        raise ValueError(f"--rerank {args.rerank} compares {part.NEEDS}; one for descriptors is wanted, such as gfr")
    takes = {name: parameter.default for name, parameter in inspect.signature(part.rerank).parameters.items()}
    if "parameters" in takes:  # those of GFR, by keyword
        takes |= {"k": inspect.Parameter.empty, "alpha": inspect.Parameter.empty}
    for name, usual in DEFAULTS.items():
        given = getattr(args, name, None)
        if given is not None and name not in takes:
            raise ValueError(f"--{name} {given}: {args.rerank} has no {name}; leave it out")
        if given is not None:
            chosen[name] = given
        elif name in takes:
            chosen[name] = usual if takes[name] is inspect.Parameter.empty else takes[name]
    if args.k is None and "k" in chosen:
        chosen["k"] = min(chosen["k"], max(others, 1))
    if "k" in chosen and not 1 <= chosen["k"] <= others:
        wanted = f"1 to {others}, as many others as each picture has to choose from"
        raise ValueError(f"--k {chosen['k']}: wanted is {wanted}")
    if not 0 <= chosen.get("alpha", 0) <= LARGEST_ALPHA:  # NaN is not, either
        raise ValueError(f"--alpha {args.alpha:g}: a number from 0 to {LARGEST_ALPHA:g} is wanted")
    return part, chosen
