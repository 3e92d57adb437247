"""BERT and RoBERTa: post-norm layers whose output modules project, add the residual and normalise in one go."""

from collections.abc import Mapping

from mainspring.models.maps import (
    Entry,
    Map,
    Refused,
    Stack,
    Table,
    When,
    attention,
    into,
    merged,
    outof,
    refused,
    separate_qkv,
)


def _attention(path: str, name: str) -> Table:
    """The module `path` holds `self`, which computes the heads, and `output`, which projects, adds and normalises."""
    return merged(
        attention(path, "output.dense", name=name, kernel=f"{path}.self"),
        separate_qkv(f"{path}.self", "query", "key", "value", name=name),
        {f"{name}.out": outof(f"{path}.output.dense")},
    )


MLP: Mapping[str, Entry] = {
    "mlp.pre": outof("intermediate.dense"),
    "mlp.up": Refused("this MLP has no gate, so its only hidden input is mlp.pre"),
    "mlp.post": into("output.dense"),
    "mlp.out": outof("output.dense"),
    "mlp.add": "mlp.out",
}

CHUNKED = "this model runs its MLP on slices of the text (chunk_size_feed_forward), so no module sees it whole"

LAYER = (
    {"resid_pre": into(""), "resid_mid": outof("attention.output"), "resid_post": outof("")},
    _attention("attention", "attn"),
    When("crossattention", merged(_attention("crossattention", "cross"), {"resid_mid": outof("crossattention.output")})),
    MLP,
    When(
        lambda layer: getattr(layer, "chunk_size_feed_forward", 0) > 0,
        refused(CHUNKED, "mlp.pre", "mlp.post", "mlp.out", "mlp.add"),
    ),
)

STACK = Stack(
    "encoder.layer",
    LAYER,
    final_norm=None,
    residual="post-norm",
    norms=("attention.output.LayerNorm", "output.LayerNorm"),
)

NOTES = (
    "Post-norm: the stream is normalised after each addition, so resid_pre + attn.add + mlp.add is not resid_post. resid_mid is "
    "the stream that the MLP reads and adds to."
)

MAPS = (
    Map("bert", ("bert",), STACK, trunk=("bert", ""), notes=NOTES),
    Map("roberta", ("roberta",), STACK, trunk=("roberta", ""), positions="own", notes=NOTES),
)
