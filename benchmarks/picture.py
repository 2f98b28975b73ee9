"""The picture of `make bench`: times as shares of the plain way's, and the shares that are wanted at most.

python benchmarks/picture.py results/bench/table.csv
"""

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd


def main(table):
    rows = pd.read_csv(table).dropna(subset="there").iloc[::-1]
    places, ratios = range(len(rows)), rows["seconds"] / rows["there"]
    figure, axes = plt.subplots(figsize=(9, 1 + 0.24 * len(rows)), layout="constrained")
    axes.barh(places, ratios, color="tab:blue", label="time here / time of the other")
    axes.plot(rows["goal"], places, "|", color="tab:orange", markersize=12, markeredgewidth=3, label="wanted at most")
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set(xscale="log", xlabel="ratio of times, logarithmic: left of 1 is faster", yticks=places)
    axes.set_yticklabels(rows["what"] + " / " + rows["against"], fontsize=8)
    figure.legend(loc="outside upper right", ncols=2, frameon=False)
    figure.savefig(Path(table).with_name("bench.png"), dpi=150)


if __name__ == "__main__":
    main(sys.argv[1])
