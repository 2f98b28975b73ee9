"""`ssr fetch`, `ssr convert`: data sets and weights that others have published."""

import sys
from argparse import Namespace

from ssr_lib.commands.main import check_file, note, shown
from ssr_lib.datasets.fetch import DATA_SETS
from ssr_lib.datasets.fetch import fetch as fetch_data_set


def fetch(args: Namespace) -> None:
    """Download data sets, or list those there are."""
    if not args.names:
        for name, data_set in DATA_SETS.items():
            print(f"{name:27s}{data_set['size']:>19s}   {data_set['about']}")
    for name in args.names:
        folder = fetch_data_set(name, args.to, shards=args.shards, progress=sys.stderr.isatty(), tell=note)
        print(shown(str(folder)))


def convert(args: Namespace) -> None:
    """Convert weights into a checkpoint, and print where it is."""
    from ssr_lib import official  # loads torch

    file = check_file(args.file)
    beside = file.with_name(f"{file.stem}-{args.family}") if file.suffix == ".safetensors" else file.with_suffix("")
    how = {"trained_on": args.trained_on or "", "superglobal": args.superglobal}
    print(shown(str(official.convert(file, args.family, args.out or beside, **how))))
