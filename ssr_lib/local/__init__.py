"""Local features of pictures, for the re-ranker that verifies matches geometrically."""
