"""The study as an application of the library: profiles, artefacts that are made once, rows, figures, tables, runner, report."""

import os
import tempfile

if (
    os.path.expanduser("~") == "~"
):  # neither HOME nor an entry of the user: Jupyter asks for one as soon as it is imported
    os.environ["HOME"] = tempfile.gettempdir()

from ssr_lib.study.artefacts import Study

__all__ = ["Study"]
