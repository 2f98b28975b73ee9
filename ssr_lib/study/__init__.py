"""The study, an application of the library: profiles, artefacts made once, rows, figures, tables, runner, report."""

import os
import tempfile

if os.path.expanduser("~") == "~":  # neither HOME nor an entry of the user, and Jupyter asks when it is imported
    os.environ["HOME"] = tempfile.gettempdir()

from ssr_lib.study.artefacts import Study as Study
