"""Image → global descriptor: backbones, the self-similarity embedding and its controls, pooling, whitening, weights."""

from ssr_lib.models.backbones import create_backbone
from ssr_lib.models.checkpoints import load_checkpoint, read_record, save_checkpoint
from ssr_lib.models.network import RetrievalNet
from ssr_lib.models.self_similarity import SelfSimilarity, self_similarity_map, structural_descriptor

__all__ = [
    "RetrievalNet",
    "SelfSimilarity",
    "create_backbone",
    "load_checkpoint",
    "read_record",
    "save_checkpoint",
    "self_similarity_map",
    "structural_descriptor",
]
