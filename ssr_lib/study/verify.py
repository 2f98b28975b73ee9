"""Whether a study is reproduced: run again, and every row beside the committed one, each against its tolerance."""

from __future__ import annotations

import io
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

import pandas as pd

from ssr_lib.files import write_atomic
from ssr_lib.study.profile import load_profile
from ssr_lib.study.provenance import repository_root
from ssr_lib.study.run import run

UNTRAINED = 0.001  # 0.1 point: the same arithmetic on another machine
TRAINED = 0.01  # 1 point: rounding grows over the steps of a training …
DEVIATIONS = (
    2.0  # … or twice the standard deviation over seeds, or half the interval of a difference, whichever is more
)
SHARE = 0.1  # of trained figures that may be outside: two deviations leave out 1 in 20
FURTHEST = 10.0  # tolerances that no figure may be away
KEY = ["notebook", "dataset", "network", "reranker", "difficulty", "measure", "setting"]
TIMES = r"\b(?:s|ms)\b"  # measures that are another machine's own, as is arithmetic in another dtype


def verify(profile: str = "demo", *, workspace: Path | str | None = None, progress: bool = True) -> int:
    """Run `profile` again in `<repository>/build/verify`, print every figure that left its tolerance; 0 where reproduced, else 1.

    Compared with are the rows as they were last committed; outside git those that lie in results. A verify that was
    killed goes on where it stopped; one that finished starts from nothing. Raises `FileNotFoundError` for no rows.
    """
    networks, name = load_profile(profile).networks, Path(profile).stem
    committed = _committed(repository_root() / "results" / name)
    workspace = Path(workspace or repository_root() / "build" / "verify")
    finished = workspace / "data" / "study" / f"{name}.finished"
    if finished.is_file():
        for folder in (workspace / "data", workspace / "results"):
            shutil.rmtree(folder, ignore_errors=True)
    again = _read(run(profile, workspace=workspace, progress=progress) / "rows")
    table = compare(committed, again, [name for name, line in networks.items() if line.trained and not line.checkpoint])
    write_atomic(finished, "")
    wrong, same = table[~table["agrees"]], same_study(table)
    if len(wrong):
        print(wrong.drop(columns="agrees").to_string(index=False, na_rep=""))
    print(
        f"{len(table)} figures of {name}, {len(wrong)} outside their tolerance; up to {SHARE:.0%} of the trained ones"
    )
    print(f"may be by chance, no others: the study is {'' if same else 'NOT '}reproduced")
    return int(not same)


def _committed(results: Path) -> pd.DataFrame:
    try:
        git = ["git", "-C", str(results), "archive", "HEAD", "rows"]
        archive = subprocess.run(git, capture_output=True, check=True).stdout
    except (FileNotFoundError, subprocess.CalledProcessError):  # no git, no repository, nothing committed
        return _read(results / "rows")
    with tempfile.TemporaryDirectory() as folder, tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        tar.extractall(folder, filter="data")
        return _read(Path(folder, "rows"))


def _read(folder: Path) -> pd.DataFrame:
    """The rows of every notebook that are compared. Raises `FileNotFoundError` where there are none."""
    files = sorted(folder.glob("*.csv"))
    if not files:
        raise FileNotFoundError(f"{folder} holds no rows; run `ssr study` first")
    rows = pd.concat([pd.read_csv(file).assign(notebook=file.stem) for file in files], ignore_index=True)
    rows = rows.fillna(dict.fromkeys([*KEY[:-1], "chosen"], ""))
    return rows[~rows["measure"].str.contains(TIMES) & ~rows["chosen"].str.contains("dtype")]


def compare(first: pd.DataFrame, second: pd.DataFrame, trained: list[str]) -> pd.DataFrame:
    """Rows of two runs side by side: those of trainings as means over seeds, the others one by one.

    `trained`: names of networks behind whose figures trainings stand. Columns: `KEY`, `first`, `second`, `tolerance`,
    `trained`, `agrees`. A figure that one run has not does not agree, but for sweeps, which go through what was chosen.
    """
    table = _means(first).join(_means(second)["first"].rename("second"), how="outer").reset_index()
    table = table[(table["setting"] == "") | table[["first", "second"]].notna().all(axis=1)]
    table["trained"] = table["network"].isin(trained)
    kind = table.groupby(["dataset", "difficulty", "measure"])  # one training gets the typical spread of its kind
    spread = DEVIATIONS * table["spread"].fillna(kind["spread"].transform("median"))
    spread = spread.fillna(table["half"]).clip(lower=TRAINED).fillna(TRAINED).where(table["trained"], UNTRAINED)
    table["tolerance"] = spread * table["first"].abs().clip(lower=1)
    off, nothing = (table["second"] - table["first"]).abs(), table[["first", "second"]].isna().all(axis=1)
    table["agrees"] = (off <= table["tolerance"] + 1e-9) | nothing
    return table[[*KEY, "first", "second", "tolerance", "trained", "agrees"]]


def _means(rows: pd.DataFrame) -> pd.DataFrame:
    """By `KEY`: the mean over seeds, their spread and half the interval."""
    several = rows.groupby(KEY[:-1])["chosen"].transform("nunique") > 1
    rows = rows.assign(setting=rows["chosen"].where(several, ""), half=(rows["high"] - rows["low"]) / 2)
    seeded = rows.groupby(KEY)["seed"].transform("count") > 0
    rows = rows[rows["seed"].notna() | ~seeded]  # the row over several seeds is the mean of theirs
    return rows.groupby(KEY).agg(first=("value", "mean"), spread=("value", "std"), half=("half", "mean"))


def same_study(table: pd.DataFrame) -> bool:
    """Whether the figures that `compare` set side by side are those of one study.

    Both runs have every figure, those without training agree, of the trained ones at most `SHARE` are outside their
    tolerance, which by chance alone some are, and none is further than `FURTHEST` of them.
    """
    wrong = table[~table["agrees"]]
    if wrong[["first", "second"]].isna().any(axis=None) or not wrong["trained"].all():
        return False
    near = (wrong["first"] - wrong["second"]).abs() <= FURTHEST * wrong["tolerance"]
    return bool(near.all() and len(wrong) <= SHARE * table["trained"].sum())
