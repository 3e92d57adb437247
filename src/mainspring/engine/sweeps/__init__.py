"""Many slightly different runs as one planned request: the numbers of the naive loop at a fraction of its cost."""
