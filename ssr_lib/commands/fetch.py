"""`ssr fetch`: public data sets."""

import sys
from argparse import Namespace

from ssr_lib.commands.main import note, shown
from ssr_lib.datasets.fetch import DATA_SETS
from ssr_lib.datasets.fetch import fetch as fetch_data_set


def fetch(args: Namespace) -> None:
    """Download a data set, or list those there are."""
    if args.name is None:
        for name, data_set in DATA_SETS.items():
            print(f"{name:27s}{data_set['size']:>19s}   {data_set['about']}")
        return
    options = {"shards": args.shards, "progress": sys.stderr.isatty(), "tell": note}
    print(shown(str(fetch_data_set(args.name, args.to, **options))))
