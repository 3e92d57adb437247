"""DistilBERT: BERT's post-norm layer, with the norms outside the sublayers."""

from mainspring.models.families.bert import CHUNKED, NOTES
from mainspring.models.maps import Map, Stack, When, attention, into, outof, plain_mlp, refused, separate_qkv

LAYER = (
    {"resid_pre": into(""), "resid_mid": outof("sa_layer_norm"), "resid_post": outof("")},
    attention("attention", "out_lin"),
    separate_qkv("attention", "q_lin", "k_lin", "v_lin"),
    plain_mlp("ffn", "lin1", "lin2"),
    When(lambda layer: layer.ffn.chunk_size_feed_forward > 0, refused(CHUNKED, "mlp.pre", "mlp.post")),
)

STACK = Stack(
    "transformer.layer",
    LAYER,
    final_norm=None,
    residual="post-norm",
    norms=("sa_layer_norm", "output_layer_norm"),
    width="dim",
    heads="n_heads",
)

MAPS = (Map("distilbert", ("distilbert",), STACK, trunk=("distilbert", ""), notes=NOTES),)
