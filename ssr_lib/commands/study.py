"""`ssr study`, `verify`, `report`, `readme`, `fetch`, `convert`: the study itself and what it needs from outside."""

from __future__ import annotations

import sys
from argparse import Namespace
from pathlib import Path


def _profile(args: Namespace) -> str:
    if args.profile and args.profile_option and args.profile != args.profile_option:
        raise ValueError(f"two profiles are named: {args.profile} and {args.profile_option}")
    return args.profile or args.profile_option or "demo"


def study(args: Namespace) -> int:
    """Execute the notebooks of a profile."""
    import yaml

    profile, changes = _profile(args), {}
    for change in args.changes:
        key, equals, value = change.partition("=")
        if not key or not equals:
            raise ValueError(f"--set {change}: KEY=VALUE is wanted, for example training.steps=50")
        changes[key] = yaml.safe_load(value)  # numbers, lists and true or false as a profile spells them
    from ssr_lib.study.run import run

    run(profile, workspace=args.workspace, notebooks=args.notebook, **changes)
    return 0


def verify(args: Namespace) -> int:
    """Run a profile again and compare; 1 where it is not the same study any more."""
    profile = _profile(args)
    from ssr_lib.study.run import verify

    return verify(profile, workspace=args.workspace)


def report(args: Namespace) -> int:
    """Assemble the report of a profile and print where it is."""
    profile = _profile(args)
    from ssr_lib.study.report import report

    print(report(profile, workspace=args.workspace))
    return 0


def readme(args: Namespace) -> int:
    """Write the figures of a profile into README.md."""
    from ssr_lib.study.readme import update_readme

    print(update_readme(_profile(args)))
    return 0


def fetch(args: Namespace) -> int:
    """Download a data set, or list those there are."""
    from ssr_lib.datasets.fetch import DATA_SETS, fetch

    if args.name is None:
        for name, data_set in DATA_SETS.items():
            print(f"{name:27s}{data_set.size:>19s}   {data_set.about}")
        return 0
    if args.name in DATA_SETS:
        Path(args.to).mkdir(parents=True, exist_ok=True)
        print(f"ssr: {DATA_SETS[args.name].announcement(Path(args.to))}", file=sys.stderr)
    print(fetch(args.name, args.to, progress=sys.stderr.isatty()))
    return 0


def convert(args: Namespace) -> int:
    """Turn published weights into a checkpoint of ours."""
    if not Path(args.file).is_file():
        raise FileNotFoundError(f"{args.file}: no such file")
    from ssr_lib.weights import convert

    file = Path(args.file)
    beside = file.with_name(f"{file.stem}-{args.family}") if file.suffix == ".safetensors" else file.with_suffix("")
    made = convert(file, args.family, args.out or beside, trained_on=args.trained_on, superglobal=args.superglobal)
    print(made)
    return 0
