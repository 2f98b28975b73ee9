"""The study as an application of the library: profiles, artefacts that are made once, rows, figures, tables, runner, report."""

from ssr_lib.study.artefacts import Study

__all__ = ["Study"]
