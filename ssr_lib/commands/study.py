"""`ssr study`, `ssr verify`, `ssr report`: the study itself."""

from argparse import Namespace
from pathlib import Path

import yaml

from ssr_lib.files import one_line


def study(args: Namespace) -> None:
    """Execute the notebooks of a profile, with changes KEY=VALUE whose values are spelled as a profile spells them."""
    changes = {}
    for setting in args.changes:
        key, equals, value = setting.partition("=")
        if not key or not equals:
            raise ValueError(f"--set {setting}: KEY=VALUE is wanted, for example training.steps=50")
        with one_line(f"--set {setting}: {value!r} is no value as a profile has it (YAML)"):
            changes[key] = yaml.safe_load(value)
    from ssr_lib.study.run import run

    run(args.profile, args.workspace, changes, notebooks=args.notebook)


def verify(args: Namespace) -> int:
    """Run a profile again and compare; 1 where it is not the same study any more."""
    from ssr_lib.study.verify import verify

    return verify(args.profile, workspace=args.workspace)


def report(args: Namespace) -> None:
    """Assemble the report of a profile and print where it is."""
    from ssr_lib.study.run import report

    print(report(Path(args.profile).stem, workspace=args.workspace))  # a profile may be a .yaml file
