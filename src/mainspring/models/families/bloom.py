"""BLOOM: linear position biases on the scores; attention and MLP add the residual inside their modules."""

from typing import Any

from mainspring.models.maps import Map, Stack, When, attention, fused_qkv, merged, outof, plain_mlp, refused, sequential_residual

# the modules return their output plus the stream, so the sublayers' own outputs are those of their last projections
LAYER = (
    sequential_residual("post_attention_layernorm"),
    merged(attention("self_attention", "dense", registered="inside"), {"attn.out": outof("self_attention.dense")}),
    fused_qkv("self_attention.query_key_value", "per_head"),
    merged(plain_mlp("mlp", "dense_h_to_4h", "dense_4h_to_h"), {"mlp.out": outof("mlp.dense_4h_to_h")}),
    When(
        lambda layer: layer.self_attention.pretraining_tp > 1 and layer.self_attention.slow_but_exact,
        refused(
            "this configuration (slow_but_exact) multiplies by slices of the projection's weight and never calls it",
            "attn.z",
            "attn.head_out",
            "attn.out",
            "mlp.post",
            "mlp.out",
        ),
    ),
)


def _stack(config: Any) -> Stack:
    if config.apply_residual_connection_post_layernorm:
        norms = ("input_layernorm", "post_attention_layernorm")
        return Stack("h", LAYER, final_norm="ln_f", residual="normed", norms=norms)
    return Stack("h", LAYER, final_norm="ln_f")


MAPS = (
    Map(
        "bloom",
        ("bloom",),
        _stack,
        trunk=("transformer", ""),
        notes="With apply_residual_connection_post_layernorm the sublayers add to the norm's output and not to the stream, "
        "so resid_pre + attn.add + mlp.add is not resid_post.",
    ),
)
