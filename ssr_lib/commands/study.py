"""`ssr study`, `ssr verify`, `ssr report`: the study itself."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

import yaml


def _profile(args: Namespace) -> str:
    if args.profile and args.profile_option and args.profile != args.profile_option:
        raise ValueError(f"two profiles are named: {args.profile} and {args.profile_option}")
    return args.profile or args.profile_option or "demo"


def study(args: Namespace) -> None:
    """Execute the notebooks of a profile, with changes KEY=VALUE whose values are spelled as a profile spells them."""
    profile, changes = _profile(args), {}
    for setting in args.changes:
        key, equals, value = setting.partition("=")
        if not key or not equals or key in changes:
            told = f"{key} is set twice" if key in changes else "KEY=VALUE is wanted, for example training.steps=50"
            raise ValueError(f"--set {setting}: {told}")
        if key in ("profile", "workspace", "notebooks", "progress"):  # names of `run`'s own
            raise ValueError(f"--set {setting}: {key} cannot be changed this way; `ssr study --help` has its options")
        try:
            changes[key] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise ValueError(f"--set {setting}: {value!r} is no value as a profile has it (YAML)") from error
    from ssr_lib.study.run import run

    run(profile, workspace=args.workspace, notebooks=args.notebook, **changes)


def verify(args: Namespace) -> int:
    """Run a profile again and compare; 1 where it is not the same study any more."""
    profile = _profile(args)
    from ssr_lib.study.verify import verify

    return verify(profile, workspace=args.workspace)


def report(args: Namespace) -> None:
    """Assemble the report of a profile and print where it is."""
    profile = _profile(args)
    from ssr_lib.study.report import report

    print(report(Path(profile).stem, workspace=args.workspace))  # a profile may be a .yaml file
