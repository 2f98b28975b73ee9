"""Tables: means with their deviation over seeds, and how they are shown."""

import numpy as np
import pandas as pd

from ssr_lib.study.tables import mean_and_deviation, styled


def test_means_over_queries_and_their_deviation_over_seeds_by_hand():
    lines = [("plain", 0, "medium", 0.1), ("plain", 0, "medium", 0.3), ("plain", 1, "medium", 0.4)]
    lines += [("plain", 1, "medium", np.nan), ("plain", 0, "hard", 0.5), ("plain", 1, "hard", 0.5)]
    lines += [("untrained", None, "medium", 0.25)]
    scores = pd.DataFrame(lines, columns=["network", "seed", "difficulty", "value"]).astype({"seed": "Int64"})
    table = mean_and_deviation(scores, ["network"])
    assert list(table) == ["network", "seeds", "medium", "hard"]
    assert table.iloc[0].tolist() == ["plain", 2, "30.0 ± 14.1", "50.0 ± 0.0"]  # 20 and 40: deviation 20 / √2
    assert table.iloc[1, :3].tolist() == ["untrained", 0, "25.0"]
    shown, again = (styled(pd.DataFrame({"mAP": [50.123, np.nan]})).to_html() for _ in range(2))
    assert "50.12" in shown and "50.123" not in shown and "nan" not in shown and shown == again
