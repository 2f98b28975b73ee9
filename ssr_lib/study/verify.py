"""Whether a study is reproduced: run again, and every row beside the committed one, each against its tolerance."""

import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from ssr_lib.study.profile import load_profile
from ssr_lib.study.provenance import repository_root
from ssr_lib.study.run import run

UNTRAINED = 0.001  # 0.1 point: the same arithmetic on another machine, which draws a pixel in a thousand otherwise
TRAINED, DEVIATIONS = 0.01, 2.0  # a point, or so many standard deviations over seeds: rounding grows with the steps
SHARE = 0.1  # of the figures of each trained network, rounded up, may be outside: two deviations leave out 1 in 20
FURTHEST = 10.0  # tolerances that no figure may be away
OF_HEADS = ("activity", "|S| / |X|")  # of these none may be outside: where they are, the head is another
KEY = ["notebook", "dataset", "network", "reranker", "difficulty", "measure", "setting"]
LEFT_OUT = r"\b(?:s|ms)\b| − "  # times, a machine's own as is arithmetic in a dtype; differences of figures here


def verify(profile: str = "demo", *, workspace: Path | str | None = None, progress: bool = True) -> int:
    """Run `profile` again in a folder of its own below build/ and print all figures outside; 0 if reproduced, else 1.
    A verify that was killed goes on where it stopped; one that finished starts from nothing."""
    name, networks = Path(profile).stem, load_profile(profile).networks
    committed = _committed(repository_root() / "results" / name)
    folder = Path(workspace or repository_root() / "build") / "verify" / name  # apart from whatever was run before
    if (folder / "finished").is_file():
        shutil.rmtree(folder)
    again = _read(run(profile, workspace=folder, progress=progress) / "rows")
    (folder / "finished").touch()
    table = compare(committed, again, [line for line, network in networks.items() if network.checkpoint])
    wrong, same = table[~table["agrees"]], same_study(table)
    if len(wrong):
        print(wrong.drop(columns="agrees").to_string(index=False, na_rep=""))
    print(f"{len(table)} figures of {name}, {len(wrong)} outside: the study is {'' if same else 'NOT '}reproduced")
    return int(not same)


def _committed(results: Path) -> pd.DataFrame:
    """The rows of a results folder as they were last committed; outside git those that lie there."""
    with tempfile.TemporaryDirectory() as folder:
        archive = f"{folder}/rows.zip"
        try:
            git = ["git", "-C", str(results), "archive", "-o", archive, "HEAD", "rows"]
            subprocess.run(git, capture_output=True, check=True)
        except (FileNotFoundError, subprocess.CalledProcessError):  # no git, no repository, nothing committed
            return _read(results / "rows")
        shutil.unpack_archive(archive, folder)
        return _read(Path(folder, "rows"))


def _read(folder: Path) -> pd.DataFrame:
    """The rows of every notebook that are compared. Raises `FileNotFoundError` where there are none."""
    files = sorted(folder.glob("*.csv"))
    if not files:
        raise FileNotFoundError(f"{folder} holds no rows; run `ssr study {folder.parent.name}` first")
    rows = pd.concat([pd.read_csv(file).assign(notebook=file.stem) for file in files], ignore_index=True)
    rows = rows.fillna(dict.fromkeys([*KEY[:-1], "chosen"], ""))
    return rows[~rows["measure"].str.contains(LEFT_OUT) & ~rows["chosen"].str.contains("dtype")]


def compare(first: pd.DataFrame, second: pd.DataFrame, given: Sequence[str] = ()) -> pd.DataFrame:
    """Rows of two runs side by side, means over seeds; what has a seed was trained, but for networks that were `given`.
    A figure that one run has not does not agree, but for sweeps, which go through what was chosen."""
    table = _means(first).join(_means(second)["first"].rename("second"), how="outer").reset_index()
    table = table[(table["setting"] == "") | table[["first", "second"]].notna().all(axis=1)]
    table["trained"] = (table["seeds"] > 0) & ~table["network"].isin(given)
    typical = table.groupby(["difficulty", "measure"])["spread"].transform("median")  # where there is one training
    spread = (DEVIATIONS * table["spread"].fillna(typical)).fillna(0).clip(lower=TRAINED)
    few = table["setting"].str.contains('"R": ')  # galleries of a set R: where it is small, one query moves the mean
    table["tolerance"] = spread.where(table["trained"] | few, UNTRAINED) * table["first"].abs().clip(lower=1)
    nothing = table[["first", "second"]].isna().all(axis=1)
    table["agrees"] = ((table["second"] - table["first"]).abs() <= table["tolerance"] + 1e-9) | nothing
    return table[[*KEY, "first", "second", "tolerance", "trained", "agrees"]]


def _means(rows: pd.DataFrame) -> pd.DataFrame:
    """By `KEY`: the mean over seeds, their spread and number."""
    rows = rows.assign(setting=rows["chosen"].where(rows.groupby(KEY[:-1])["chosen"].transform("nunique") > 1, ""))
    seeded = rows.groupby(KEY)["seed"].transform("count") > 0
    rows = rows[rows["seed"].notna() | ~seeded]  # the row over several seeds is the mean of theirs
    return rows.groupby(KEY).agg(first=("value", "mean"), spread=("value", "std"), seeds=("seed", "count"))


def same_study(table: pd.DataFrame) -> bool:
    """Whether no untrained figure and none `OF_HEADS` is outside, few trained ones are, and none is `FURTHEST` away."""
    wrong = table[~table["agrees"]]
    near = (wrong["first"] - wrong["second"]).abs() <= FURTHEST * wrong["tolerance"]  # not so where one is missing
    outside = (~table["agrees"]).groupby(table["network"]).agg(["sum", "count"])
    few = outside["sum"] < SHARE * outside["count"] + 1
    return bool(wrong["trained"].all() and near.all() and few.all() and not wrong["measure"].isin(OF_HEADS).any())
