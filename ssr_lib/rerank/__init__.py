"""Re-rankers of a first ranking: ours, and those it is compared with."""

from ssr_lib.rerank.global_rerank import Augmented, Reranking, augment_database, global_rerank
from ssr_lib.rerank.query_expansion import alpha_query_expansion, average_query_expansion, database_augmentation
from ssr_lib.rerank.sift_ransac import local_rerank
from ssr_lib.rerank.superglobal import superglobal_rerank

__all__ = [
    "Augmented",
    "Reranking",
    "alpha_query_expansion",
    "augment_database",
    "average_query_expansion",
    "database_augmentation",
    "global_rerank",
    "local_rerank",
    "superglobal_rerank",
]
