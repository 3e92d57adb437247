"""Falcon: three generations of one name: shared, grouped or separate key-value heads, parallel or not, rotary or alibi."""

from typing import Any

from torch import nn

from mainspring.models.maps import (
    Dims,
    Map,
    Stack,
    attention,
    fused_qkv,
    parallel_residual,
    plain_mlp,
    sequential_residual,
)


def _dims(config: Any, layer: nn.Module) -> Dims:
    heads = config.num_attention_heads
    kv_heads = config.num_kv_heads if config.new_decoder_architecture else 1 if config.multi_query else heads
    return Dims(config.hidden_size, heads, kv_heads, config.hidden_size // heads)


def _stack(config: Any) -> Stack:
    parallel = config.new_decoder_architecture or config.parallel_attn
    return Stack(
        "h",
        (
            parallel_residual() if parallel else sequential_residual("post_attention_layernorm"),
            attention("self_attention", "dense", registered="inside"),
            # the queries of each key-value head, its key, its value: of which there is one group, some, or one per query head
            fused_qkv("self_attention.query_key_value", "per_group"),
            plain_mlp("mlp", "dense_h_to_4h", "dense_4h_to_h"),
        ),
        final_norm="ln_f",
        residual="parallel" if parallel else "pre-norm",
        dims=_dims,
    )


MAPS = (
    Map(
        "falcon",
        ("falcon",),
        _stack,
        trunk=("transformer", ""),
        notes="With alibi, transformers adds the position biases once under sdpa and twice under eager attention; scores are "
        "those of the kernel in use.",
    ),
)
