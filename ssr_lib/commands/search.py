"""`ssr search`, `ssr index`: one's own photographs; and how commands on pictures name networks."""

import dataclasses
import json
import os
import sys
from argparse import Namespace
from pathlib import Path

import numpy as np
import torch

from ssr_lib.commands.main import check_file, note, shown
from ssr_lib.datasets.folder import list_pictures
from ssr_lib.decode import load_image
from ssr_lib.extract import describe, descriptors_of, pick_device
from ssr_lib.files import check_writable, digest, one_line
from ssr_lib.gallery import Gallery, index_folder
from ssr_lib.images import PRESETS, Preprocess
from ssr_lib.network import RetrievalNet
from ssr_lib.rerank import NO_GROUP, first_ranking, standing_out
from ssr_lib.rerank._choice import choose_reranker
from ssr_lib.scale.live import SHORTLIST, LiveIndex
from ssr_lib.search import prepare
from ssr_lib.weights import checkpoint_files, load_checkpoint, stored_preprocess

PACKAGED = {f"lite{i}": f"tf_efficientnet_lite{i}" for i in range(3)}


def search(args: Namespace) -> None:
    """Rank the pictures of a folder by likeness to one; print the list before and after re-ranking."""
    load_image(check_file(args.photo))  # this and what follows before the gallery is indexed, which can take long
    if args.out:
        out = Path(args.out)
        if out.suffix != ".png" or out.is_dir() or not out.absolute().parent.is_dir():
            raise ValueError(f"--out {out}: a name that ends in .png is wanted, in a folder that is there")
        check_writable(out)
        own = [args.photo, *(Path(args.gallery, name) for name in list_pictures(args.gallery)[0])]
        if Path(args.gallery).resolve() in out.resolve().parents or (out.exists() and any(map(out.samefile, own))):
            raise ValueError(f"--out {out} is the query or a picture of the gallery, or would be; give another name")
    before, after, parameters, record = _found(args)
    places, lists = {name: place for place, (name, _) in enumerate(before, start=1)}, {"before": [], "after": []}
    for entries, found in zip(lists.values(), (before, after), strict=True):
        for place, (name, score) in enumerate(found[: args.top], start=1):
            entries.append({"place": place, "place_before": places.get(name), "file": name, "score": round(score, 6)})
    if args.json:
        record |= {"query": args.photo, "gallery": args.gallery, "rerank": args.rerank, **parameters, **lists}
        print(json.dumps(record, indent=1))
    else:
        print(f"{record['pictures']:,} pictures in {shown(args.gallery)}, {record['newly_indexed']:,} newly indexed")
        if record.get("standing_out", sys.maxsize) < parameters.get("k", 0):
            print(NO_GROUP)
        told = ", ".join([args.rerank, *(f"{name} = {value:g}" for name, value in parameters.items())])
        for title, entries in zip(("before re-ranking", f"after re-ranking ({told})"), lists.values(), strict=True):
            print(f"\n{title}\n place  before   score  picture")
            for entry in entries:
                was = entry["place_before"] or "-"
                print(f"{entry['place']:6d}{was:>8}  {entry['score']:.4f}  {shown(entry['file'])}")
    if args.out:  # last: the lists are there even where a picture has gone meanwhile
        from ssr_lib.study.figures import ranked_lists  # loads matplotlib

        rows = []
        for title, entries in lists.items():
            pictures = [Path(args.gallery, entry["file"]) for entry in entries]
            rows.append((title, pictures, [entry["score"] for entry in entries], ["unknown"] * len(entries)))
        ranked_lists(Path(args.photo), rows, Path(args.out))


def _found(args: Namespace) -> tuple[list, list, dict, dict]:
    """Pictures with their scores, before and after re-ranking; its parameters; what else is told."""
    net, preprocess, options = opened(args)
    record = {"model": args.model or "lite0", "preprocess": preprocess.to_dict()}
    if args.live:  # without a look at the folder
        place, made_by, parameters = _live(args, net, preprocess, options)
        live = LiveIndex.load(place, made_by)
        query = describe(net, [args.photo], preprocess, **options)  # (1, D)
        names = [os.path.relpath(real(args.photo), real(args.gallery)) for real in (os.path.realpath, os.path.abspath)]
        own = next((name for name in names if name in live.rows()), None)
        found = [live.search(query[0], SHORTLIST, rerank=rerank, own=own) for rerank in (False, True)]
        return *found, parameters, record | {"pictures": len(live.rows()), "newly_indexed": 0}
    most = sys.maxsize if args.k is None else max(1, len(list_pictures(args.gallery)[0]) - 1)  # neighbours
    choose_reranker(args.rerank, most, k=args.k, alpha=args.alpha)
    gallery = _indexed(args, net, preprocess, options)
    own = gallery.find(args.photo)
    others = len(gallery.files) - (own is not None)
    if others < 2:
        raise ValueError(f"{args.gallery} holds {others} usable pictures besides the query; two or more are wanted")
    part, parameters = choose_reranker(args.rerank, len(gallery.files) - 1, k=args.k, alpha=args.alpha)
    query = describe(net, [args.photo], preprocess, **options)  # (1, D)
    database, found = prepare(gallery.descriptors), []
    first = first_ranking(query, database, None if own is None else np.array([own]))
    with one_line(f"--rerank {args.rerank}"):
        prepared = gallery.prepared(part, database, parameters)
        again = part.rerank(query, database, first, prepared=prepared, **parameters)
        for ids, scores in ((first.ids, first.scores), (again.ranks, again.scores)):
            found.append([(gallery.files[i], float(score)) for i, score in zip(ids[0], scores[0], strict=True)])
    record |= {"pictures": len(gallery.files), "newly_indexed": gallery.n_new, "unreadable": gallery.unreadable}
    return *found, parameters, record | {"skipped": gallery.skipped, "standing_out": standing_out(first.scores[0])}


def _indexed(args: Namespace, net: RetrievalNet, preprocess: Preprocess, options: dict) -> Gallery:
    gallery = index_folder(net, args.gallery, preprocess, args.index, sys.stderr.isatty(), **options)
    for reason in (*gallery.unreadable.values(), *(f"{count} × {why}" for why, count in gallery.skipped.items())):
        note(f"left out: {reason}")
    return gallery


def _live(args: Namespace, net: RetrievalNet, preprocess: Preprocess, options: dict) -> tuple[Path, str, dict]:
    """Where the live index of a gallery lies; what it and its queries are made by; k and alpha."""
    if args.rerank != "gfr":
        raise ValueError(f"--rerank {args.rerank}: a live index re-ranks by gfr")
    parameters = choose_reranker("gfr", sys.maxsize, k=args.k, alpha=args.alpha)[1]
    made_by = descriptors_of(net, preprocess, options["device"], options["dtype"])[1]
    network = f"{net.config['backbone']}, head {net.config['head']}, {preprocess.size} px, {digest(made_by)[:12]}"
    place = Path(args.index or Path(args.gallery, ".ssr-index"), f"live-{digest(os.path.realpath(args.gallery))[:16]}")
    return place, f"{network}, k = {parameters['k']}, alpha = {parameters['alpha']:g}", parameters


def index(args: Namespace) -> None:
    """Make the live index of a folder, or bring it up to what is there now."""
    net, preprocess, options = opened(args)
    place, made_by, parameters = _live(args, net, preprocess, options)
    choose_reranker("gfr", min(len(list_pictures(args.gallery)[0]) - 1, SHORTLIST), k=parameters["k"])  # at once
    gallery = _indexed(args, net, preprocess, options)
    choose_reranker("gfr", min(len(gallery.files) - 1, SHORTLIST), k=parameters["k"])  # without the unreadable ones
    pictures = dict(zip(gallery.files, gallery.descriptors, strict=True))
    LiveIndex.follow(place, pictures, made_by, **parameters).save(place)
    told = f"{len(gallery.files):,} pictures in {shown(args.gallery)}, {gallery.n_new:,} newly indexed"
    print(json.dumps({"pictures": len(gallery.files), "newly_indexed": gallery.n_new}) if args.json else told)


def opened(args: Namespace) -> tuple[RetrievalNet, Preprocess, dict]:
    """The network of `--model`, its preparation unless `--preprocess` or `--size` tell it, options of describing."""
    options = {"device": pick_device(args.device or "cpu"), "dtype": getattr(torch, args.dtype or "float32")}
    options |= {"batch_size": args.batch_size or 16, "workers": args.workers}
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
    return net.eval(), preprocess, options
