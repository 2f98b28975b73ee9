"""Image retrieval by self-similarity embedding and global feature re-ranking. Importing this loads nothing heavy."""

__version__ = "0.1.0"
