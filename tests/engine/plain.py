"""An oracle of reads, edits and gradients in plain torch: hooks on named modules, and an attention written out.

Imports nothing of mainspring. It runs a copy of the model in which every site passes through a function of the test's choice, and
records what flows on there. Values keep their graph, so `torch.autograd.grad` gives the oracle's gradients.
"""

import copy

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS

NAMES = {
    "llama": {
        "stack": "model",
        "layers": "layers",
        "mid": "post_attention_layernorm",
        "attn": "self_attn",
        "o": "o_proj",
        "mlp": "mlp",
        "down": "down_proj",
        "pre": "gate_proj",
        "up": "up_proj",
        "final": "norm",
    },
    "gpt2": {
        "stack": "transformer",
        "layers": "h",
        "mid": "ln_2",
        "attn": "attn",
        "o": "c_proj",
        "mlp": "mlp",
        "down": "c_proj",
        "pre": "c_fc",
        "final": "ln_f",
    },
}

_current = None
"""The oracle that runs just now."""


def _attention(module, query, key, value, mask, scaling=None, dropout=0.0, **_):
    tap, layer = _current.tap, f"layers.{module.layer_idx}.attn."
    query = tap(layer + "q", query.transpose(1, 2)).transpose(1, 2)
    key = tap(layer + "k", key.transpose(1, 2)).transpose(1, 2)
    value = tap(layer + "v", value.transpose(1, 2)).transpose(1, 2)
    group = query.shape[1] // key.shape[1]
    heads = [h // group for h in range(query.shape[1])]
    scores = torch.einsum("bhqd,bhkd->bhqk", query, key[:, heads]) * (scaling or query.shape[-1] ** -0.5)
    if mask is not None:
        scores = torch.where(mask < -1e30, float("-inf"), scores)
    scores = tap(layer + "scores", scores)
    dead = (scores == float("-inf")).all(-1, keepdim=True)
    pattern = torch.softmax(torch.where(dead, torch.zeros_like(scores), scores), -1) * ~dead
    pattern = tap(layer + "pattern", pattern)
    return torch.einsum("bhqk,bhkd->bqhd", pattern, value[:, heads]), pattern


AttentionInterface.register("plain_oracle", _attention)
AttentionMaskInterface.register("plain_oracle", ALL_MASK_ATTENTION_FUNCTIONS["eager"])


class Plain:
    """`run(inputs, edits)` gives the logits; `values[site]` what flowed on at every site."""

    def __init__(self, module, family):
        self.module = copy.deepcopy(module)
        self.module.config._attn_implementation = "plain_oracle"
        self.names, self.family = NAMES[family], family
        self.heads = self.module.config.num_attention_heads
        self.kv = getattr(self.module.config, "num_key_value_heads", self.heads)
        self.edits, self.values = {}, {}
        self._hook()

    def run(self, inputs, edits=None, grad=False):
        """Edits map a site's text to a function of its whole tensor."""
        global _current
        self.edits, self.values = dict(edits or {}), {}
        kwargs = inputs if isinstance(inputs, dict) else {"input_ids": torch.as_tensor(inputs)}
        _current = self
        try:
            with torch.set_grad_enabled(grad):
                logits = self.tap("logits", self.module(**kwargs, use_cache=False).logits)
        finally:
            _current = None
        unused = set(self.edits) - set(self.values)
        assert not unused, f"the oracle has no {unused}"
        return logits

    def tap(self, name, value):
        if name in self.edits:
            value = self.edits[name](value).contiguous()
        elif value.requires_grad:
            value = value.view_as(value)  # a tensor of its own, through which everything downstream flows
        self.values[name] = value
        return value

    def weight(self, projection):
        """[heads, head_dim, d]"""
        inward = projection.weight if self.family == "gpt2" else projection.weight.T
        return inward.unflatten(0, (self.heads, -1))

    def _hook(self):
        n = self.names
        stack = getattr(self.module, n["stack"])
        for i, layer in enumerate(getattr(stack, n["layers"])):
            self._hook_layer(f"layers.{i}.", layer, first=i == 0)
        getattr(stack, n["final"]).register_forward_hook(lambda m, a, out: self.tap("final_norm", out))

    def _hook_layer(self, at, layer, first):
        n, tap, kept = self.names, self.tap, {}
        attn, mlp = getattr(layer, n["attn"]), getattr(layer, n["mlp"])

        def before_layer(m, args):
            value = tap("embed", args[0]) if first else args[0]
            kept["resid"] = tap(at + "resid_pre", value)
            return (kept["resid"], *args[1:])

        def after_attention(m, args, out):
            value = tap(at + "attn.add", tap(at + "attn.out", out[0]))
            # the layer adds the residual itself: whatever the stream becomes is put in as what attention must have added
            return (tap(at + "resid_mid", kept["resid"] + value) - kept["resid"], *out[1:])

        def around_o(m, args, out):
            z = args[0].unflatten(-1, (self.heads, -1))
            shares = torch.stack([z[:, :, h] @ self.weight(m)[h] for h in range(self.heads)], dim=2)
            new = tap(at + "attn.head_out", shares)
            return new.sum(2) + m.bias

        layer.register_forward_pre_hook(before_layer)
        layer.register_forward_hook(lambda m, a, out: tap(at + "resid_post", out))
        attn.register_forward_hook(after_attention)
        o = getattr(attn, n["o"])
        o.register_forward_pre_hook(lambda m, a: (tap(at + "attn.z", a[0].unflatten(-1, (self.heads, -1))).flatten(-2),))
        o.register_forward_hook(around_o)
        getattr(mlp, n["pre"]).register_forward_hook(lambda m, a, out: tap(at + "mlp.pre", out))
        if "up" in n:
            getattr(mlp, n["up"]).register_forward_hook(lambda m, a, out: tap(at + "mlp.up", out))
        getattr(mlp, n["down"]).register_forward_pre_hook(lambda m, a: (tap(at + "mlp.post", a[0]),))
        mlp.register_forward_hook(lambda m, a, out: tap(at + "mlp.add", tap(at + "mlp.out", out)))
        if self.family == "gpt2":

            def after_fused(m, args, out):
                parts = [p.unflatten(-1, (self.heads, -1)) for p in out.split(out.shape[-1] // 3, dim=-1)]
                return torch.cat([tap(f"{at}attn.{w}_proj", p).flatten(-2) for w, p in zip("qkv", parts, strict=True)], dim=-1)

            attn.c_attn.register_forward_hook(after_fused)
            return
        for word, heads in (("q", self.heads), ("k", self.kv), ("v", self.kv)):

            def after_projection(m, args, out, word=word, heads=heads):
                return tap(f"{at}attn.{word}_proj", out.unflatten(-1, (heads, -1))).flatten(-2)

            getattr(attn, f"{word}_proj").register_forward_hook(after_projection)
