"""`ssr evaluate` on real photographs: an untrained network stays above floors well under what was measured.

Measured by this command with tf_efficientnet_lite0, GeM p = 3, longest side 384 px: INRIA Holidays subset 84.5, SMVS landmarks 50.1.
"""

import json

import pytest

from ssr_lib.commands.main import main


@pytest.mark.parametrize("name,queries,database,floor,ceiling", [
    ("holidays", 299, 509, 0.80, 0.90), ("smvs_landmarks", 101, 101, 0.40, 0.55)
])  # fmt: skip
def test_untrained_network_finds_real_photographs(extra_data, capsys, name, queries, database, floor, ceiling):
    assert main(["evaluate", str(extra_data / "photos" / name / "labels.csv"), "--k", "1", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["benchmark"], found["queries"], found["database"]) == (name, queries, database)
    without, with_ = (found["results"][key]["medium"]["mAP"] for key in ("without re-ranking", "with re-ranking"))
    assert floor < without < ceiling
    assert abs(with_ - without) < 0.15  # one neighbour changes little where most queries have one positive
