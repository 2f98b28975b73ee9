"""`ssr study`, `verify`, `report`, `fetch`, `convert`: the study itself and what it needs from outside."""

from __future__ import annotations

from argparse import Namespace


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
    from ssr_lib.study import run

    run(profile, workspace=args.workspace, notebooks=args.notebook, **changes)
    return 0


def verify(args: Namespace) -> int:
    """Run a profile again and compare; 1 where a figure left its tolerance."""
    profile = _profile(args)
    from ssr_lib.study import verify

    return verify(profile, workspace=args.workspace)


def report(args: Namespace) -> int:
    """Assemble the report of a profile and print where it is."""
    profile = _profile(args)
    from ssr_lib.study import report

    print(report(profile, workspace=args.workspace))
    return 0
