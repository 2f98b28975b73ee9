"""Self-similarity embedding and global feature re-ranking: the helper package of the study.

The parts, in the order data flows through them: `data`, `models`, `train`, `extract`, `search`, `rerank`,
`metrics`, `significance`, `results`, `figures`, `study`. Importing the package itself loads nothing heavy.
"""

__version__ = "0.1.0"
