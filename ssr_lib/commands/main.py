"""The `ssr` command. Each subcommand's module is imported when it is called, so that `ssr --help` is instant."""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import errno
import importlib
import io
import os
import sys
import warnings

from ssr_lib import __version__
from ssr_lib.commands.train import add_train

MODELS = "lite0, lite1, lite2 (ImageNet weights that come with the installation), or a checkpoint file"


def build_parser() -> argparse.ArgumentParser:
    """All subcommands; `run` names the function that carries one out, as module:function."""
    parser = argparse.ArgumentParser(
        prog="ssr", description="Image retrieval by self-similarity embedding and global feature re-ranking: a study."
    )
    parser.add_argument("--version", action="version", version=f"ssr {__version__}")
    parser.add_argument("--traceback", action="store_true", help="show where an error arose, for reporting a defect")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_search(commands)
    _add_evaluate(commands)
    _add_study(commands)
    add_train(commands)
    _add_fetch(commands)
    _add_convert(commands)
    return parser


def _add_model_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("model")
    group.add_argument("--model", default="lite0", metavar="NAME|FILE", help=f"{MODELS}; default %(default)s")
    group.add_argument("--preprocess", metavar="PRESET", help="lite, senet, cvnet, superglobal or cirtorch; default: "
                       "what the checkpoint says, else lite")  # fmt: skip
    group.add_argument(
        "--size",
        type=int,
        metavar="PX",
        help="longest side in pixels; default: as the preset or checkpoint says (lite: 384)",
    )
    group.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, mps …; default %(default)s")
    group.add_argument("--dtype", default="float32", choices=("float32", "bfloat16", "float16"))
    group.add_argument("--batch-size", type=int, default=16, metavar="B")
    group.add_argument("--workers", type=int, metavar="N", help="decoding threads; default: one for each core")


def _add_rerank_options(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    group = parser.add_argument_group("re-ranking")
    group.add_argument("--k", type=int, help="neighbours of each picture that are added to it; default 2, or fewer in "
                       "a smaller database")  # fmt: skip
    group.add_argument("--alpha", type=float, default=0.3, help="weight of the added neighbours; default %(default)s")
    return group


def _add_search(commands) -> None:
    parser = commands.add_parser("search", help="find pictures like one of yours in a folder")
    parser.add_argument("photo", metavar="PHOTO")
    parser.add_argument("--gallery", required=True, metavar="FOLDER", help="pictures to search, with all subfolders")
    parser.add_argument("--index", metavar="DIR", help="where their descriptors are kept; default FOLDER/.ssr-index")
    parser.add_argument("--top", type=int, default=10, metavar="N", help="pictures to list; default %(default)s")
    parser.add_argument("--out", metavar="FILE.png", help="a picture of the ranked lists")
    parser.add_argument("--json", action="store_true", help="print JSON")
    _add_rerank_options(parser)
    _add_model_options(parser)
    parser.set_defaults(run="ssr_lib.commands.search:search")


def _add_evaluate(commands) -> None:
    parser = commands.add_parser("evaluate", help="mAP on your labelled pictures, or on ROxford5k and RParis6k")
    parser.add_argument("labels", nargs="?", metavar="LABELS.csv", help="columns file, label and perhaps split "
                        "(query, db, distractor, train)")  # fmt: skip
    parser.add_argument("--ground-truth", metavar="FILE", help="instead: gnd_roxford5k.pkl, "
                        "gnd_rparis6k.pkl or one of their form, or a benchmark stored as .json")  # fmt: skip
    parser.add_argument("--images", metavar="DIR", help="folder of the pictures; default: that of LABELS.csv, or images/ "
                        "in it")  # fmt: skip
    parser.add_argument("--features", metavar="FILE", help="instead of pictures: descriptors as published with the revisited "
                        "benchmarks, .mat or .npz with X (D, N) and Q (D, queries)")  # fmt: skip
    parser.add_argument("--distractors", metavar="DIR", help="folder of revisitop1m.txt and its jpg/: more wrong pictures, "
                        "behind the database; re-ranking then stays in each query's shortlist")  # fmt: skip
    parser.add_argument("--index", metavar="DIR", help="keep the descriptors here; an interrupted run then goes on")
    parser.add_argument("--json", action="store_true", help="print JSON")
    _add_rerank_options(parser).add_argument(
        "--rerank", default="ours", choices=("ours", "superglobal"), help="default %(default)s; superglobal: k 9, beta "
        "0.15 among the first 400, unless --k says otherwise"
    )  # fmt: skip
    _add_model_options(parser)
    parser.set_defaults(run="ssr_lib.commands.evaluate:evaluate")


def _add_study(commands) -> None:
    for name, what in (
        ("study", "run the notebooks of a profile: tables, figures, report"),
        ("verify", "run a profile again and compare every figure with the committed one"),
        ("report", "assemble report.html from the executed notebooks of a profile"),
        ("readme", "write the committed figures of a profile into README.md"),
    ):
        parser = commands.add_parser(name, help=what)
        parser.add_argument("profile", nargs="?", help="smoke, demo (default), full, photos or paper")
        parser.add_argument("--profile", dest="profile_option", metavar="PROFILE", help=argparse.SUPPRESS)
        parser.add_argument("--workspace", metavar="DIR", help="folder for results/ and data/; default: the repository")
        if name == "study":
            parser.add_argument("--notebook", action="append", metavar="NAME", help="only this one (may be repeated)")
            parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="changes",
                                help="change a parameter of the profile, for example training.steps=50; the results "
                                "then go to results/custom-…")  # fmt: skip
        parser.set_defaults(run=f"ssr_lib.commands.study:{name}")


def _add_fetch(commands) -> None:
    parser = commands.add_parser("fetch", help="download a public benchmark or training set")
    parser.add_argument("name", nargs="?", metavar="NAME", help="without it: what there is, with sizes")
    parser.add_argument("--to", default="data", metavar="DIR", help="default: %(default)s/")
    parser.set_defaults(run="ssr_lib.commands.study:fetch")


def _add_convert(commands) -> None:
    parser = commands.add_parser("convert", help="turn published weights into a checkpoint")
    parser.add_argument("file", metavar="FILE")
    parser.add_argument("--family", required=True, choices=("senet", "cvnet", "gem"))
    parser.add_argument("--out", metavar="FILE", help="default: beside FILE, with .safetensors and .json")
    parser.add_argument("--trained-on", default="", metavar="SET", help="training set of the weights, for the tables "
                        "that compare: GLDv2-clean, GLDv1, SfM-120k …")  # fmt: skip
    parser.add_argument("--superglobal", action="store_true", help="with SuperGlobal's pooling (family cvnet)")
    parser.set_defaults(run="ssr_lib.commands.study:convert")


def _reuse_large_buffers() -> None:
    """Have glibc keep freed memory: a network asks for the same 100 MB buffers again and again, and getting each of
    them from the system anew, page by page, takes two thirds of the time on a CPU."""
    m_trim_threshold, m_mmap_max = -1, -4  # malloc.h
    with contextlib.suppress(OSError, AttributeError, TypeError):  # another C library: nothing to set
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(m_trim_threshold, 2**31 - 1)
        mallopt(m_mmap_max, 0)


def _say(text: str) -> None:
    print(f"ssr: {text}", file=sys.stderr)


def main(argv: list[str] | None = None) -> int:
    """Carry out a command line. Exit status: 0 done, 1 `verify` found another study, 2 wrong input, 130 interrupted."""
    args = build_parser().parse_args(argv)
    warnings.formatwarning = lambda message, *_, **__: f"ssr: {message}\n"
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a file name need not be valid text
    _reuse_large_buffers()
    module, function = args.run.split(":")
    try:
        status = getattr(importlib.import_module(module), function)(args)
        sys.stdout.flush()  # here, where a full disk or a closed pipe can still be reported
        return status or 0
    except KeyboardInterrupt:
        _say(f"interrupted; {_going_on(args)}")
        return 130
    except BrokenPipeError:  # `ssr search … | head`: the reader has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (ValueError, OSError, RuntimeError, MemoryError, ImportError) as error:
        if args.traceback:
            raise
        _say(_sentence(error, args))
        return 2
    except Exception as error:
        if args.traceback:
            raise
        _say(
            f"unexpected {type(error).__name__}: {error}; the same with `ssr --traceback …` shows where, please report it"
        )
        return 2


def _going_on(args: argparse.Namespace) -> str:
    """What repeating a command does that was cut short: of all that take long, one keeps nothing unless told where."""
    if args.command != "evaluate" or (args.index and not args.features):
        return "the same command goes on from here"
    anew = "nothing is kept of it, the same command begins anew"
    return anew if args.features else f"{anew}; with --index DIR it would go on"


def _sentence(error: BaseException, args: argparse.Namespace) -> str:
    """What went wrong, in words a user can act on."""
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return f"{error.strerror}: make room, or name another folder; {_going_on(args)}"
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return "out of memory; try a smaller --batch-size or --size"
    return str(error) or type(error).__name__


if __name__ == "__main__":
    sys.exit(main())
