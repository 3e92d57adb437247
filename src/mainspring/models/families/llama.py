"""Llama and the many that kept its layout: pre-norm, separate projections, gated MLP."""

from mainspring.models.maps import Map, Stack, attention, gated_mlp, separate_qkv, sequential_residual

LAYER = (sequential_residual("post_attention_layernorm"), attention(), separate_qkv(), gated_mlp())

MAPS = (Map("llama", ("llama", "mistral", "qwen2", "qwen3", "gemma"), Stack(tables=LAYER)),)
