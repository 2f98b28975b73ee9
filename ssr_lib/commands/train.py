"""`ssr train`: a network on GLDv2-clean, in one process or, under torchrun, in many."""

from __future__ import annotations

import argparse

VARIANTS = ("plain", "self-similarity", "neighbour", "conv")


def add_train(commands) -> None:
    """Add the subcommand; nothing heavy is imported before it is called."""
    parser = commands.add_parser(
        "train",
        help="train a network on Google Landmarks v2 clean",
        description="Train a network on Google Landmarks v2 clean. A killed run goes on when the command is repeated. "
        "On several GPUs: torchrun --nproc-per-node 8 -m ssr_lib train …",
    )
    data = parser.add_argument_group("data")
    data.add_argument("--clean-csv", required=True, metavar="FILE", help="train_clean.csv")
    data.add_argument("--images", required=True, metavar="DIR", help="folder in which 0/1/2/0123456789abcdef.jpg lies")
    data.add_argument("--leave-out", metavar="FILE", help="landmark ids not to train on, one a line: those of Oxford "
                      "and Paris, which the benchmarks test")  # fmt: skip
    data.add_argument("--workers", type=int, default=4, metavar="N", help="decoding processes for each training one")
    model = parser.add_argument_group("model")
    model.add_argument("--backbone", default="resnet50", help="a timm model; default %(default)s")
    model.add_argument("--pretrained", default="hub", metavar="SOURCE", help="hub (downloads), package, none, or a "
                       ".safetensors file; default %(default)s")  # fmt: skip
    model.add_argument("--variant", default="self-similarity", choices=VARIANTS, help="default %(default)s")
    model.add_argument("--place", default="last", choices=("mid", "last"), help="of the module; default %(default)s")
    model.add_argument("--mid-channels", type=int, default=256, help="default %(default)s, as Lee et al., CVPR 2023")
    model.add_argument("--window", type=int, default=7, help="default %(default)s, as Lee et al., CVPR 2023")
    model.add_argument("--descriptor-dim", type=int, default=2048, help="default %(default)s")
    run = parser.add_argument_group("run")
    run.add_argument("--out", required=True, metavar="DIR", help="gets the state, the model and the learning curve")
    run.add_argument("--device", default="cpu", help="cpu, cuda, …; default %(default)s")
    run.add_argument("--checkpoint-every", type=int, default=1000, metavar="STEPS")
    run.add_argument("--log-every", type=int, default=50, metavar="STEPS")
    run.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="an entry of the recipe, "
                     "recipes.gldv2.train.ImageTrainConfig: --set lr=0.01 --set precision=bfloat16")  # fmt: skip
    parser.set_defaults(run="ssr_lib.commands.train:train")


def train(args: argparse.Namespace) -> None:
    """Carry out `ssr train`. Raises `ValueError` naming an argument that cannot be."""
    from recipes.gldv2.train import train_images
    from ssr_lib.datasets.gldv2 import read_clean, read_ids
    from ssr_lib.network import RetrievalNet

    config = read_recipe(args.set)
    files, labels = read_clean(args.clean_csv, leave_out=read_ids(args.leave_out) if args.leave_out else ())
    if not files:
        left_out = f" but those of {args.leave_out}" if args.leave_out else ""
        raise ValueError(f"{args.clean_csv} lists no pictures{left_out}; a row for each landmark is wanted")
    net = RetrievalNet(
        args.backbone,
        args.variant,
        place=args.place,
        mid_channels=args.mid_channels,
        window=args.window,
        descriptor_dim=args.descriptor_dim,
        pretrained=args.pretrained,
        seed=config.seed,
    )
    rows = train_images(
        net,
        args.images,
        files,
        labels,
        preprocess_of(args.backbone),
        config,
        args.out,
        device=args.device,
        workers=args.workers,
        checkpoint_every=args.checkpoint_every,
        log_every=args.log_every,
        trained_on="GLDv2-clean" + (" without some landmarks" if args.leave_out else ""),
    )
    print(f"{args.out}/model.safetensors: {rows[-1]['step']} steps, loss {rows[-1]['loss']:.3f}")


def read_recipe(settings: list[str]):
    """The `ImageTrainConfig` with some entries given as "name=value"; raises `ValueError` naming a wrong one."""
    from dataclasses import fields

    from recipes.gldv2.train import ImageTrainConfig

    defaults = {field.name: field.default for field in fields(ImageTrainConfig)}
    chosen = {}
    for setting in settings:
        name, _, value = setting.partition("=")
        if name not in defaults:
            raise ValueError(f"--set {setting}: the recipe has no {name!r}, but {', '.join(defaults)}")
        kind = type(defaults[name])
        try:
            chosen[name] = {"true": True, "false": False}[value.lower()] if kind is bool else kind(value)
        except (ValueError, KeyError) as error:
            raise ValueError(f"--set {setting}: a value like {defaults[name]!r} is wanted") from error
    return ImageTrainConfig(**chosen)


def preprocess_of(backbone: str):
    """How pictures are prepared for a timm backbone: its own mean and deviation, RGB, full size, three scales at test.

    The scales are those that the descendants of DELG are tested with (sungonce/SENet, core/config.py).
    """
    import timm

    from ssr_lib.images import Preprocess

    source = timm.get_pretrained_cfg(backbone)
    if source is None:
        raise ValueError(f"timm has no weights of {backbone!r}, so it does not say how its pictures are prepared")
    return Preprocess(size_rule="none", size=None, scales=(0.7071, 1.0, 1.4142), mean=source.mean, std=source.std)
