"""Mixtral and Qwen3-MoE: the layout of Llama with experts in place of the MLP, in all layers or in some."""

from mainspring.models.maps import (
    Map,
    Stack,
    When,
    attention,
    gated_mlp,
    mixture,
    separate_qkv,
    sequential_residual,
)

LAYER = (
    sequential_residual("post_attention_layernorm"),
    attention(),
    separate_qkv(),
    When("mlp.gate_proj", gated_mlp()),
    When("mlp.experts", mixture()),
)

MAPS = (Map("mixtral", ("mixtral", "qwen3_moe"), Stack(tables=LAYER)),)
