"""OPT: an MLP without a module of its own, which sees all tokens of the batch in one axis; post-norm in the 350m checkpoint."""

from typing import Any

from mainspring.models.maps import Map, Refused, Stack, attention, flattened, into, outof, separate_qkv

MLP = {
    "mlp.pre": outof("fc1", form=flattened()),
    "mlp.up": Refused("this MLP has no gate, so its only hidden input is mlp.pre"),
    "mlp.post": into("fc2", form=flattened()),
    "mlp.out": outof("fc2", form=flattened()),
    "mlp.add": "mlp.out",
}


def _stack(config: Any) -> Stack:
    before = config.do_layer_norm_before
    mid = into("final_layer_norm", form=flattened(), shared=True) if before else outof("self_attn_layer_norm")
    return Stack(
        "layers",
        (
            {"resid_pre": into(""), "resid_mid": mid, "resid_post": outof("")},
            attention("self_attn", "out_proj"),
            separate_qkv("self_attn"),
            MLP,
        ),
        final_norm="final_layer_norm" if before else None,
        residual="pre-norm" if before else "post-norm",
        norms=() if before else ("self_attn_layer_norm", "final_layer_norm"),
    )


MAPS = (
    Map(
        "opt",
        ("opt",),
        _stack,
        trunk=("model.decoder", "decoder", ""),
        positions="own",
        notes="attn.q holds the scale of the dot product already. In the post-norm checkpoint (350m) the stream is normalised "
        "after each addition: resid_mid and resid_post are outputs of norms, and the head reads a projection of the last one.",
    ),
)
