"""Re-rankers of a first ranking, one file each; `ssr_lib.files.load_part` finds one by its name.

A re-ranker's file has `NEEDS = "descriptors"` and `rerank(queries, database, first, *, prepared=None, **parameters) ->
Reranking`. Queries (Q, D) and database (N, D) are float32 arrays or `search.Prepared`: let `search.prepare` make one
kind of both, or hand them on to `search.rank` and `search.knn`, which take either. Where `NEEDS` is "maps" they are
`store.Maps`, and where it is "pictures" files. `first` is a `Ranking` or None; with `first.own` an image is left out of
its own ranking. The optional `prepare(database, **parameters)` makes what depends on no query; it comes back as
`prepared`, for the same database and parameters. Do not import another function of that name. What the optional
`fit(descriptors or maps, labels, …)` learns from training pictures comes back as `learned`, to both.
"""

from ssr_lib.rerank._augmented import Augmented, augment_database
from ssr_lib.rerank._choice import NO_GROUP, standing_out
from ssr_lib.rerank._ranking import Ranking, Reranking, first_ranking
from ssr_lib.rerank.alpha_qe import alpha_query_expansion
from ssr_lib.rerank.aqe import average_query_expansion
from ssr_lib.rerank.dba import database_augmentation
from ssr_lib.rerank.gfr import global_rerank
from ssr_lib.rerank.superglobal import superglobal_rerank

__all__ = [
    "NO_GROUP",
    "Augmented",
    "Ranking",
    "Reranking",
    "alpha_query_expansion",
    "augment_database",
    "average_query_expansion",
    "database_augmentation",
    "first_ranking",
    "global_rerank",
    "standing_out",
    "superglobal_rerank",
]
