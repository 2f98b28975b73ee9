"""`ssr convert`: published weights into a checkpoint of ours."""

from argparse import Namespace

from ssr_lib import official
from ssr_lib.commands.main import check_file, shown


def convert(args: Namespace) -> None:
    """Convert, and print where the checkpoint is."""
    file = check_file(args.file)
    beside = file.with_name(f"{file.stem}-{args.family}") if file.suffix == ".safetensors" else file.with_suffix("")
    out = beside if args.out is None else args.out
    made = official.convert(file, args.family, out, trained_on=args.trained_on or "", superglobal=args.superglobal)
    print(shown(str(made)))
