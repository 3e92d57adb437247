"""Cohere 2 (Command R7B): attention and MLP in parallel behind one norm; logits scaled."""

from mainspring.models.maps import Map, Stack, attention, gated_mlp, parallel_residual, separate_qkv

LAYER = (parallel_residual(), attention(), separate_qkv(), gated_mlp())

MAPS = (Map("cohere2", ("cohere2",), Stack(tables=LAYER, residual="parallel")),)
