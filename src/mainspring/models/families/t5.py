"""T5: an encoder and a decoder whose sublayers normalise and add the residual themselves.

The main stack is the decoder, with self-attention `attn` and cross-attention `cross`; the stack `encoder` has `attn` alone.
`resid_mid` is the stream that the MLP reads: in a decoder that is after the cross-attention, so
resid_pre + attn.add + cross.add = resid_mid. The stream between the two attentions is
`module["decoder.block.N.layer.1"].input`. Scores include the learned position bias.
"""

from mainspring.models.maps import (
    Map,
    Stack,
    Table,
    Tower,
    When,
    attention,
    gated_mlp,
    into,
    merged,
    outof,
    plain_mlp,
    separate_qkv,
)


def _attention(path: str, name: str) -> Table:
    return merged(attention(path, "o", name=name), separate_qkv(path, "q", "k", "v", name=name))


FF = "layer.-1.DenseReluDense"

LAYER = (
    {"resid_pre": into(""), "resid_mid": into("layer.-1"), "resid_post": outof("")},
    _attention("layer.0.SelfAttention", "attn"),
    When("layer.1.EncDecAttention", _attention("layer.1.EncDecAttention", "cross")),
    plain_mlp(FF, "wi", "wo"),
    When(f"{FF}.wi_0", gated_mlp(FF, "wi_0", "wi_1", "wo")),
)

STACK = Stack("block", LAYER, final_norm="final_layer_norm", width="d_model", heads="num_heads", head_dim="d_kv")

MAPS = (
    Map(
        "t5",
        ("t5",),
        STACK,
        trunk=("decoder", "transformer.decoder"),
        towers={"encoder": Tower(("encoder", "transformer.encoder"), STACK)},
        positions="own",
        notes="A decoder's resid_mid stands after the cross-attention; resid_pre + attn.add + cross.add + mlp.add = resid_post.",
    ),
    Map(
        "t5-encoder",
        ("T5EncoderModel", "T5ForTokenClassification"),
        STACK,
        trunk=("encoder", "transformer.encoder"),
        positions="own",
    ),
)
