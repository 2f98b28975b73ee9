"""The `ssr` command. Each subcommand's module is imported when it is called, so that `ssr --help` is instant."""

import argparse
import contextlib
import ctypes
import errno
import importlib
import io
import os
import stat
import sys
import unicodedata
import warnings
from pathlib import Path

from ssr_lib import __version__

RERANKERS = "gfr, aqe, alpha_qe, dba, alpha_qe_dba, superglobal, none"
GOING_ON = "the same command goes on behind what its index or folder holds, and begins anew without one"
ELSEWHERE = {"verify": "study", "report": "study", "index": "search", "whiten": "evaluate", "convert": "fetch"}
UNSEEN = ("Cc", "Cs", "Zl", "Zp")  # control characters, broken text, line separators: Unicode categories


def shown(text: str) -> str:
    """Text for a terminal: what would steer it or break the line is escaped, since file names may hold anything."""
    return "".join(ascii(c)[1:-1] if unicodedata.category(c) in UNSEEN else c for c in text)


def note(text: object, *_: object) -> None:
    """Tell the user something, as one line on standard error."""
    print(f"ssr: {shown(str(text))}", file=sys.stderr)


def check_file(path: Path | str) -> Path:
    """The path of a file that can be read more than once. Raises `OSError` or `ValueError` naming it otherwise."""
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise ValueError(f"{path}: a folder, a pipe or a device; a file is wanted")
    return Path(path)


def count(text: str) -> int:
    """A whole number of the command line, 1 or more."""
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number of 1 or more")
    return int(text)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str):
        self.exit(2, f"ssr: {shown(message)}; `{self.prog} --help` says what is wanted\n")


def build_parser() -> argparse.ArgumentParser:
    """All subcommands and their options."""
    parser = _Parser(prog="ssr", description="Image retrieval: self-similarity embedding, global feature re-ranking.")
    parser.add_argument("--version", action="version", version=f"ssr {__version__}")
    parser.add_argument("--traceback", action="store_true", help="show where an error arose, for reporting a defect")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    folder = _Parser(add_help=False)
    folder.add_argument("--gallery", required=True, metavar="FOLDER", help="the pictures, with all subfolders")
    folder.add_argument("--index", metavar="DIR", help="where descriptors are kept; default FOLDER/.ssr-index")
    _add_shared_options(folder)
    commands.add_parser("index", parents=[folder], help="index a folder for `ssr search --live`, or what changed in it")
    search = commands.add_parser("search", parents=[folder], help="find pictures like one of yours in a folder")
    add = search.add_argument
    add("photo", metavar="PHOTO")
    add("--live", action="store_true", help="by the approximate index that `ssr index` made")
    add("--top", type=count, default=10, metavar="N", help="pictures to list; default %(default)s")
    add("--out", metavar="FILE.png", help="a picture of the ranked lists")
    evaluate = commands.add_parser("evaluate", help="mAP on your labelled pictures, or on ROxford5k and RParis6k")
    add = evaluate.add_mutually_exclusive_group(required=True).add_argument
    add("labels", nargs="?", metavar="LABELS.csv", help="columns file, label, perhaps split: query, db, distractor")
    add("--ground-truth", metavar="FILE", help="instead: gnd_roxford5k.pkl or one of its form, or a benchmark as .json")
    add = evaluate.add_argument
    add("--features", metavar="FILE", help="instead of pictures: .mat or .npz with X (D, N) and Q (D, queries)")
    add("--distractors", metavar="DIR", help="revisitop1m: more wrong pictures; gfr then stays in a query's shortlist")
    add("--engine", choices=["ray"], help="describe on the cluster of RAY_ADDRESS, or by processes here; docs/scale.md")
    _add_shared_options(evaluate)
    whiten = commands.add_parser("whiten", help="learn a whitening from your labelled pictures, for --model")
    whiten.add_argument("labels", metavar="LABELS.csv", help="columns file, label; of a column split the train rows")
    whiten.add_argument("--out", metavar="FILE", help="the whitened network, for --model; default: LABELS-whitened")
    _add_shared_options(whiten, ranks=False)
    for add in (evaluate.add_argument, whiten.add_argument):
        add("--images", metavar="DIR", help="folder of the pictures; default: that of LABELS.csv, or images/ in it")
        add("--index", metavar="DIR", help="keep the descriptors here; an interrupted run then goes on")
    study = commands.add_parser("study", help="run the notebooks of a profile: tables, figures, report")
    _add_profile(study)
    add = study.add_argument
    add("--notebook", action="append", metavar="NAME", help="only this one (may be repeated)")
    add("--set", action="append", default=[], metavar="KEY=VALUE", dest="changes", help="results go to custom-…")
    verify = commands.add_parser("verify", help="run a profile again and compare every figure with the committed one")
    _add_profile(verify, "build")
    _add_profile(commands.add_parser("report", help="assemble report.html from the executed notebooks of a profile"))
    add = commands.add_parser("fetch", help="download a public benchmark or training set").add_argument
    add("names", nargs="*", metavar="NAME", help="without one: what there is, with sizes")
    add("--to", default="data", metavar="DIR", help="default: %(default)s/")
    add("--shards", metavar="0-4,7", help="of gldv2 only these of 500 archives, of 1 GB each; default: all")
    add = commands.add_parser("convert", help="turn published weights into a checkpoint").add_argument
    add("file", metavar="FILE")
    add("--family", required=True, help="senet, cvnet, gem, or a vision transformer by its name in timm")
    add("--out", metavar="FILE", help="default: beside FILE, with .safetensors and .json")
    add("--trained-on", metavar="SET", help="training set, for tables that compare: GLDv2-clean …")
    add("--superglobal", action="store_true", help="with SuperGlobal's pooling (family cvnet)")
    return parser


def _add_shared_options(parser: argparse.ArgumentParser, ranks: bool = True) -> None:
    if ranks:
        parser.add_argument("--json", action="store_true", help="print JSON")
        add = parser.add_argument_group("re-ranking").add_argument
        add("--rerank", default="gfr", metavar="NAME", help=f"{RERANKERS}, or a module or .py file; default gfr")
        add("--k", type=int, help="neighbours of each picture that are added to it; default: the re-ranking's, gfr 2")
        add("--alpha", type=float, help="weight of the added neighbours; default with gfr 0.3")
    add = parser.add_argument_group("model").add_argument
    add("--model", metavar="NAME|FILE", help="lite0 (default), lite1, lite2: ImageNet weights, or a checkpoint file")
    add("--preprocess", metavar="PRESET", help="lite, senet, cvnet, superglobal, cirtorch; default: the checkpoint's")
    add("--size", type=count, metavar="PX", help="longest side in pixels; default: the preset's or checkpoint's")
    add("--device", help="cpu (default), cuda, cuda:1, mps …")
    add("--dtype", choices=("float32", "bfloat16", "float16"), help="default float32")
    add("--batch-size", type=count, metavar="B", help="default 16")
    add("--workers", type=count, metavar="N", help="decoding threads; default: one for each core")


def _add_profile(parser: argparse.ArgumentParser, workspace: str = "the repository") -> None:
    parser.add_argument("profile", nargs="?", default=argparse.SUPPRESS, help="of profiles/, or a .yaml; default demo")
    parser.add_argument("--profile", default="demo", help=argparse.SUPPRESS)
    parser.add_argument("--workspace", metavar="DIR", help=f"for results/ and data/cache/; default: {workspace}")


def main(argv: list[str] | None = None) -> int:
    """Carry out a command line. Exit status: 0 done, 1 `verify` found another study, 2 wrong input, 130 interrupted."""
    if sys.stderr is None:  # 2>&-
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115  (until the process ends)
    if sys.stdout is None:  # >&-
        note("standard output is closed; nothing could be shown")
        return 2
    args = build_parser().parse_args(argv)
    warnings.showwarning = note
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a file name need not be valid text
    # glibc is to keep freed memory: to get 100 MB buffers anew, page by page, takes two thirds of the time on a CPU
    with contextlib.suppress(OSError, AttributeError, TypeError):  # another C library: nothing to set
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD of malloc.h
        mallopt(-4, 0)  # M_MMAP_MAX
    status = _carry_out(args)
    try:
        sys.stdout.flush()  # here, where a full disk or a closed pipe can still be reported
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # no second try when the process ends
        if not isinstance(error, BrokenPipeError):  # `ssr search … | head`: the reader has seen enough
            note(f"standard output: {error.strerror}")
            return 2
    return status


def _carry_out(args: argparse.Namespace) -> int:
    try:
        for name, value in vars(args).items():
            if value == "":
                raise ValueError(f"{name.replace('_', '-')} is empty; leave it out, or name what is wanted")
        module = ELSEWHERE.get(args.command, args.command)
        return getattr(importlib.import_module(f"ssr_lib.commands.{module}"), args.command)(args) or 0
    except KeyboardInterrupt:
        note(f"interrupted; {GOING_ON}")
        return 130
    except BrokenPipeError:
        return 0
    except (Exception, SystemExit) as error:  # a part of the user's own may ask for the end
        if args.traceback:
            raise
        note(_sentence(error))
        return 2


def _sentence(error: BaseException) -> str:
    """What went wrong, in words a user can act on."""
    text = str(error)
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return f"{error.strerror}: make room, or name another folder; {GOING_ON}"
    exhausted = any(words in text for words in ("out of memory", "allocate memory", "enough memory", "bad_alloc"))
    if isinstance(error, MemoryError) or exhausted:
        return "out of memory; a smaller --batch-size or --size, or fewer pictures at once, need less"
    if isinstance(error, (ValueError, OSError, RuntimeError, ImportError)):
        return text or type(error).__name__
    return f"unexpected {type(error).__name__}: {text}; `ssr --traceback …` shows where, please report it"
