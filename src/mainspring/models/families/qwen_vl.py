"""Qwen2-VL, Qwen2.5-VL and Qwen3-VL: images of any size, their patches packed in one sequence without a batch axis.

The vision tower, `projector` and `image_tokens` therefore have one row that holds all images of the run, one after the other;
`model.image_regions` tells which token belongs to which image.
"""

from typing import Any

from torch import nn

from mainspring.models.maps import (
    Dims,
    Map,
    Stack,
    Table,
    Tower,
    When,
    attention,
    find_module,
    fused_qkv,
    gated_mlp,
    into,
    merged,
    outof,
    plain_mlp,
    refused,
    separate_qkv,
    sequential_residual,
    unbatched,
    without_batch,
)

TEXT = Stack(tables=(sequential_residual("post_attention_layernorm"), attention(), separate_qkv(), gated_mlp()))

PER_IMAGE = (
    "this tower packs the patches of all images in one sequence and calls its attention kernel once per image or window, "
    "so no one tensor holds them"
)


def _mlp() -> tuple[Table | When, ...]:
    return (
        without_batch(plain_mlp("mlp", "fc1", "fc2")),
        When("mlp.gate_proj", without_batch(gated_mlp("mlp"))),
        When("mlp.linear_fc1", without_batch(plain_mlp("mlp", "linear_fc1", "linear_fc2"))),
    )


def _sizes(config: Any, layer: nn.Module) -> Dims:
    # hidden_size is the width of the blocks in Qwen2.5 and Qwen3, but that of the language model in Qwen2
    projection: Any = find_module(layer, "attn.proj")
    width = projection.out_features
    return Dims(width, config.num_heads, config.num_heads, width // config.num_heads)


def _vision(norm: str) -> Stack:
    return Stack(
        "blocks",
        (
            without_batch(sequential_residual("norm2"), attention("attn", "proj"), fused_qkv("attn.qkv", "thirds")),
            refused(PER_IMAGE, *(f"attn.{name}" for name in ("q", "k", "v", "scores", "pattern"))),
            *_mlp(),
        ),
        embed=into("blocks.0", form=unbatched()),
        final_norm=outof(norm, form=unbatched()),
        dims=_sizes,
    )


def _map(family: str, norm: str, notes: str) -> Map:
    return Map(
        family,
        (family,),
        trunk=("model.language_model", "language_model"),
        config="text_config",
        towers={"vision": Tower(("model.visual", "visual"), _vision(norm), "vision_config")},
        top=merged(
            {
                "projector": outof("visual.merger", form=unbatched()),
                "image_tokens": outof("visual", "pooler_output", form=unbatched()),
            }
        ),
        positions="own",
        images="packed",
        notes=notes,
    )


MAPS = (
    Map(
        "qwen-vl-text",
        ("qwen2_vl_text", "qwen2_5_vl_text", "qwen3_vl_text"),
        TEXT,
        trunk=("",),
        positions="own",
    ),
    _map("qwen2_vl", "merger.ln_q", "The vision tower has one row: the patches of all images."),
    _map(
        "qwen2_5_vl",
        "merger.ln_q",
        "The vision tower has one row: the patches of all images, in the order of its attention windows. projector is in that "
        "order too; image_tokens are back in the order of the text.",
    ),
    _map(
        "qwen3_vl",
        "merger.norm",
        "The vision tower has one row: the patches of all images. Deepstack: features of some vision layers are added to the "
        "image tokens between the first language layers, so there resid_post of a layer is not yet resid_pre of the next. An "
        "edit of image_tokens leaves those features alone.",
    ),
)
