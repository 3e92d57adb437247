"""Falcon-H1, Bamba and Jamba: attention and state-space mixers, side by side or in turn, each layer with an MLP."""

from typing import Any

from torch import nn

from mainspring.engine.forms import Form, Scaled
from mainspring.models.families.mamba import NO_ATTENTION, grouped_mixer, mixer
from mainspring.models.maps import (
    Dims,
    Map,
    Stack,
    When,
    attention,
    gated_mlp,
    merged,
    mixture,
    outof,
    scaled,
    separate_qkv,
    sequential_residual,
)

STREAM = sequential_residual("pre_ff_layernorm")


def _gate_scale(dims: Dims, module: nn.Module, config: Any) -> Form:
    return Scaled(float(config.mlp_multipliers[0]))


FALCON_H1 = (
    STREAM,
    attention(add=outof("self_attn", form=scaled("attention_out_multiplier"))),
    separate_qkv(),
    grouped_mixer("mamba", add=outof("mamba", form=scaled("ssm_out_multiplier"))),
    # the MLP multiplies its gate before the activation, and the output of its down projection
    merged(
        gated_mlp("feed_forward", add=outof("feed_forward")),
        {"mlp.pre": outof("feed_forward.gate_proj", form=_gate_scale), "mlp.out": outof("feed_forward.down_proj")},
    ),
)

BAMBA = (
    STREAM,
    NO_ATTENTION,
    When("self_attn", merged(attention(), separate_qkv())),
    When("mamba", grouped_mixer("mamba")),
    gated_mlp("feed_forward"),
)

JAMBA = (
    STREAM,
    NO_ATTENTION,
    When("self_attn", merged(attention(), separate_qkv())),
    # B and C are normed after their projection, and the scan takes them so
    When(
        "mamba",
        merged(
            mixer("mamba", "mamba_dt_rank", "mamba_d_state"),
            {"ssm.B": outof("mamba.b_layernorm"), "ssm.C": outof("mamba.c_layernorm")},
        ),
    ),
    When("feed_forward.gate_proj", gated_mlp("feed_forward")),
    When("feed_forward.experts", mixture("feed_forward", "router")),
)

NOTES = "resid_pre + attn.add + ssm.add + mlp.add is resid_post, with the sites that a layer has."

MAPS = (
    Map(
        "falcon_h1",
        ("falcon_h1",),
        Stack(tables=FALCON_H1, final_norm="final_layernorm"),
        notes=NOTES + " ssm.in, ssm.gate and ssm.dt are what the input projection gives, before the constants on its parts.",
    ),
    Map("bamba", ("bamba",), Stack(tables=BAMBA, final_norm="final_layernorm"), notes=NOTES),
    Map("jamba", ("jamba",), Stack(tables=JAMBA, final_norm="final_layernorm"), notes=NOTES),
)
