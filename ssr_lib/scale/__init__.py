"""What works past one machine: descriptors in shards on disk, the exact k-NN join of them, and its engine, Ray."""
