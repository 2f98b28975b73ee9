"""Sentences that read a table, composed from its numbers, so that no text can disagree with what was measured."""

from __future__ import annotations

import pandas as pd


def read_differences(
    table: pd.DataFrame, high: str = "in favour of the first", low: str = "in favour of the second"
) -> str:
    """Which differences of a table (comparison, difference, low, high, seeds: 0 where nothing is trained) have an interval without 0.

    Those of one training are counted apart: their intervals know landmarks only.
    """
    few = table[table["seeds"] == 1]
    table = table[table["seeds"] != 1]
    above, below = table[table["low"] > 0], table[table["high"] < 0]
    parts = [
        f"{word}: " + "; ".join(f"{row.comparison} ({row.difference:+.1f})" for row in rows.itertuples())
        for rows, word in ((above, high), (below, low))
        if len(rows)
    ]
    shown = len(above) + len(below)
    sentence = ""
    if len(table):
        sentence = f"The 95 % interval, of each comparison alone, excludes 0 in {shown} of {len(table)} comparisons"
        sentence += (", " + ", and ".join(parts) if parts else "") + ". "
        if shown < len(table):
            sentence += (
                f"For the other {len(table) - shown} no difference is shown. " if shown else "No difference is shown. "
            )
    if len(few):
        without = int(((few["low"] > 0) | (few["high"] < 0)).sum())
        sentence += (
            f"{len(few)} {'comparison rests' if len(few) == 1 else 'comparisons rest'} on one training and {'carries' if len(few) == 1 else 'carry'} "
            f"no verdict: such intervals, {without} of them without 0, are over landmarks only."
        )
    return sentence.strip()


def leading_number(cell: object) -> float:
    """The number at the start of a cell such as "56.3 ± 0.8"."""
    return float(str(cell).split()[0])


def read_best(table: pd.DataFrame, what: str, column: str = "Medium") -> str:
    """The best and the first row of a table of mAP in percent."""
    numbers = table[column].map(leading_number)
    labels = [
        ", ".join(str(cell) for cell in row[:2] if isinstance(cell, str)) for row in table.itertuples(index=False)
    ]
    first, best = table.index[0], numbers.idxmax()
    if best == first:
        return f"{what}, nothing is above the first row ({labels[0]}: {numbers[first]:.1f} {column} mAP)."
    return f"{what}, the highest {column} mAP is {numbers[best]:.1f} ({labels[table.index.get_loc(best)]}), {numbers[best] - numbers[first]:+.1f} from the first row."


def read_regimes(loss: dict[str, float], untrained: float, reskinned: pd.DataFrame, fitted: bool) -> str:
    """How far networks on re-skinned views were trained: final loss by regime, Medium mAP beside that without training.

    `fitted`: the start had been fitted to the views themselves, after which a low loss says nothing.
    """
    best = reskinned["Medium"].map(leading_number).max()
    text = (
        f"At the end of its first training the loss of the control is {loss['reskinned']:.2f} on re-skinned views, {loss['ordinary']:.2f} on ordinary ones. "
        f"The highest Medium mAP of the table is {best:.1f}; without any training it is {untrained:.1f}."
    )
    if fitted:
        text += " From a fitted start a low loss does not say that learning has finished; notebook 03 has mAP before and after, on validation."
    elif loss["reskinned"] > loss["ordinary"] + 1:
        text += " **These networks have not finished learning**, so their differences say little."
    return text


def read_structure(table: pd.DataFrame) -> str:
    """The AUC of twins and doubles of every row, and which are highest to within a point; 50 % is chance."""
    rows = [
        (r["variant"], leading_number(r["AUC twins"]), leading_number(r["AUC doubles"])) for _, r in table.iterrows()
    ]
    text = "; ".join(f"{name}: twins {twins:.0f} %, doubles {doubles:.0f} %" for name, twins, doubles in rows)
    best = {place: max(row[place] for row in rows) for place in (1, 2)}
    level = {place: ", ".join(row[0] for row in rows if row[place] > best[place] - 1) for place in best}
    return (
        f"{text}. Chance is 50 %. Within a point of the highest are, against twins ({best[1]:.1f} %), {level[1]}; for doubles ({best[2]:.1f} %), "
        f"{level[2]}. Claims about differences, with intervals, are in notebook 11."
    )


def read_invariance(table: pd.DataFrame) -> str:
    """Which of the better descriptors (rows, Medium mAP in percent by form of the queries) keeps most, and what masked queries find.

    Those below half of the best mAP are left out: a share of next to nothing says nothing.
    """
    better = table[table["ordinary"] >= table["ordinary"].max() / 2]
    kept = 100 * better.drop(columns="ordinary").div(better["ordinary"], axis=0)
    names = [
        f"under {form} queries {best} ({kept.loc[best, form]:.0f} %: {better.loc[best, form]:.1f} of {better.loc[best, 'ordinary']:.1f})"
        for form, best in kept.drop(columns="masked", errors="ignore").idxmax().items()
    ]
    guard = f" Masked queries find at most {table['masked'].max():.1f} Medium mAP." if "masked" in table else ""
    return f"Among descriptors with at least half of the best ordinary mAP, most is kept {', '.join(names)}.{guard}"


def read_local(table: pd.DataFrame) -> str:
    """Local re-ranking beside ours: points and milliseconds."""
    by = table.set_index("re-ranking")
    local, ours = by.loc["SIFT + RANSAC"], by.loc["ours"]
    small = [name for name in by.index if name.startswith("SIFT + RANSAC,")]
    text = (
        f"On these queries SIFT + RANSAC reaches {local['Medium']:.1f} Medium mAP at {local['ms a query']:.0f} ms a query, ours "
        f"{ours['Medium']:.1f} at {ours['ms a query']:.2f} ms; an image costs {local['bytes an image']:,.0f} bytes of local features and "
        f"{ours['bytes an image']:,.0f} of descriptor. It looks at the pictures as they are stored, larger than the networks see them"
    )
    return text + (f"; at their size it reaches {by.loc[small[0], 'Medium']:.1f}." if small else ".")


def read_distances(table: pd.DataFrame) -> str:
    """Whether classes moved apart: distances, ratio and AUC before and after."""
    by = table.set_index("re-ranking")
    before, after = by.loc["none"], by.loc["ours"]
    return (
        f"Within a class the mean distance goes from {before['intra']:.3f} to {after['intra']:.3f}, between classes from {before['inter']:.3f} to "
        f"{after['inter']:.3f}, the ratio from {before['intra / inter']:.3f} to {after['intra / inter']:.3f}, the AUC over all pairs from "
        f"{before['AUC over all pairs']:.4f} to {after['AUC over all pairs']:.4f}, and its mean query by query, which the claim is about, from "
        f"{before['AUC by query']:.4f} to {after['AUC by query']:.4f}."
    )


def read_verdicts(table: pd.DataFrame) -> str:
    """How many claims have which verdict, and the primary one's."""
    counts = ", ".join(f"{count} {verdict}" for verdict, count in table["verdict"].value_counts().items())
    first = table.iloc[0]
    if pd.isna(first["difference"]):
        return f"The primary claim is not tested here: {first['comparison']}. In all: {counts}."
    alone = table[(table["verdict"] == "not shown") & ((table["low"] > 0) | (table["high"] < 0))]
    alone = [
        f"{row.comparison} ({row.difference:+.2f}, {'for' if row.difference > 0 else 'against'} the claim)"
        for row in alone.itertuples()
    ]
    says = {"no verdict": "has no verdict"}.get(first["verdict"], f"is {first['verdict']}")
    return (
        f"**The primary claim {says}**: {first['comparison']} = {first['difference']:+.2f} points "
        f"[{first['low']:+.2f}, {first['high']:+.2f}] over {first['seeds']:.0f} trainings and {first['landmarks']:.0f} landmarks. In all: {counts}."
        + (f" Not shown after correction, though the interval alone excludes 0: {'; '.join(alone)}." if alone else "")
    )


def read_worst(worst: pd.DataFrame) -> str:
    """What the worst queries have in common: how many wrong images come first, and how many of their positives are hard."""
    wrong = worst["wrong before the first right"]
    hard = 100 * worst["of them hard"].sum() / max(1, worst["positives"].sum())
    twins = f", {worst['of them twins'].sum()} of {wrong.sum()} in all being twins" if "of them twins" in worst else ""
    return (
        f"These {len(worst)} queries have {wrong.median():.0f} wrong images (median) before the first right one{twins}; "
        f"{hard:.0f} % of their positives are hard ones."
    )


def read_preprocessing(table: pd.DataFrame) -> str:
    """Which choice of the preprocessing moves mAP most, and which differences have an interval without 0."""
    changed = table[table["difference"].notna()]
    most = changed.loc[changed["difference"].abs().idxmax()]
    clear = changed[(changed["low"] > 0) | (changed["high"] < 0)]
    names = "; ".join(f"{row.changed} ({row.difference:+.2f})" for row in clear.itertuples()) or "none"
    return (
        f"For this network and these pictures the largest move of Medium mAP is {most['difference']:+.2f} points, by {most['changed']}. "
        f"Intervals without 0: {names}."
    )


def read_contrasts(table: pd.DataFrame) -> str:
    """For each condition of `published.contrasts` the mean difference on ROxford5k, Medium and Hard, and its range."""
    lines = []
    for condition, rows in table.groupby("condition", sort=False):
        medium, hard, large = (rows[figure].dropna() for figure in ("roxf_M", "roxf_H", "roxf1m_M"))
        lines.append(
            f"- {condition}: {medium.mean():+.1f} Medium ({medium.min():+.1f} to {medium.max():+.1f}, {len(medium)} pairs), {hard.mean():+.1f} Hard"
            + (f"; with a million distractors {large.mean():+.1f} Medium" if len(large) else "")
        )
    return "On ROxford5k, mean of the pairs in points:\n\n" + "\n".join(lines)


def read_groups(best: pd.DataFrame, by: str) -> str:
    """The highest and the lowest of the best rows of groups (`published.best_of`), and how many groups are one row."""
    what = {"train_set": "training set", "rerank": "re-ranking"}.get(by, by)
    top, last = (
        f"{row['roxf_M']:.1f} ({row['method']}; {what} {row[by] or 'not given'})"
        for row in (best.iloc[0], best.iloc[-1])
    )
    return (
        f"By {what}, the highest ROxford5k Medium is {top}, that of the weakest group {last}; {(best['rows'] == 1).sum()} of "
        f"{len(best)} groups are a single row."
    )
