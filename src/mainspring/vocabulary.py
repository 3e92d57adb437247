"""The names of sites and the axes behind them, as data.

A layer site is asked for as `layers[l].NAME`; a top site as `NAME`. Either may carry the name of another stack in front
(`vision.layers[l].NAME`, `encoder.final_norm`). Axes are the contract of every tensor that is read or written there.
"""

RESIDUAL = ("batch", "pos", "dim")
QUERY_HEADS = ("batch", "pos", "head", "head_dim")
KEY_HEADS = ("batch", "pos", "kv_head", "head_dim")
WEIGHTS = ("batch", "head", "query", "key")
NEURONS = ("batch", "pos", "neuron")
CHANNELS = ("batch", "pos", "channel")

_ATTENTION = {
    "q": QUERY_HEADS,
    "k": KEY_HEADS,
    "v": KEY_HEADS,
    "q_proj": QUERY_HEADS,
    "k_proj": KEY_HEADS,
    "v_proj": KEY_HEADS,
    "scores": WEIGHTS,
    "pattern": WEIGHTS,
    "z": QUERY_HEADS,
    "head_out": ("batch", "pos", "head", "dim"),
    "out": RESIDUAL,
    "add": RESIDUAL,
}

LAYER_SITES: dict[str, tuple[str, ...]] = {
    "resid_pre": RESIDUAL,
    "resid_mid": RESIDUAL,
    "resid_post": RESIDUAL,
    **{f"attn.{name}": axes for name, axes in _ATTENTION.items()},
    **{f"cross.{name}": axes for name, axes in _ATTENTION.items()},
    "mlp.pre": NEURONS,
    "mlp.up": NEURONS,
    "mlp.post": NEURONS,
    "mlp.out": RESIDUAL,
    "mlp.add": RESIDUAL,
    "mlp.router": ("batch", "pos", "expert"),
    "ssm.in": CHANNELS,
    "ssm.gate": CHANNELS,
    "ssm.conv": CHANNELS,
    "ssm.dt": CHANNELS,
    "ssm.B": ("batch", "pos", "state"),
    "ssm.C": ("batch", "pos", "state"),
    "ssm.y": CHANNELS,
    "ssm.out": RESIDUAL,
    "ssm.add": RESIDUAL,
}
"""What a layer offers. Shapes: `pos` tokens, `head`/`kv_head` heads, `neuron` hidden units, `channel` state-space channels."""

TOP_SITES: dict[str, tuple[str, ...]] = {
    "embed": RESIDUAL,
    "final_norm": RESIDUAL,
    "logits": ("batch", "pos", "vocab"),
    "image_tokens": ("image", "patch", "dim"),
    "projector": ("image", "patch", "dim"),
}
"""What a stack offers outside its layers. `image_tokens` and `projector` belong to vision-language models."""

STACKS = ("vision", "encoder")
"""Stacks beside the main one: a vision tower, or the encoder of an encoder-decoder."""

SELECTORS = (
    "row",
    "pos",
    "step",
    "head",
    "kv_head",
    "query",
    "key",
    "neuron",
    "channel",
    "state",
    "expert",
    "dim",
    "vocab",
    "image",
    "patch",
    "t",
    "feature",
    "call",
)
"""Every selector, in the order in which a site prints them."""

TOKEN_AXES = ("pos", "query", "key")
"""Axes that count tokens: their selectors accept negative positions, spans and per-row positions."""
