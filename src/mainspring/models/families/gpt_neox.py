"""GPT-NeoX and Pythia: q, k, v packed head by head; attention and MLP in parallel unless the checkpoint says no."""

from typing import Any

from mainspring.models.maps import Map, Stack, attention, fused_qkv, parallel_residual, plain_mlp, sequential_residual


def _stack(config: Any) -> Stack:
    parallel = config.use_parallel_residual
    return Stack(
        "layers",
        (
            parallel_residual() if parallel else sequential_residual("post_attention_layernorm"),
            attention("attention", "dense"),
            fused_qkv("attention.query_key_value", "per_head"),
            plain_mlp("mlp", "dense_h_to_4h", "dense_4h_to_h"),
        ),
        final_norm="final_layer_norm",
        residual="parallel" if parallel else "pre-norm",
    )


MAPS = (Map("gpt_neox", ("gpt_neox",), _stack, trunk=("gpt_neox", "")),)
