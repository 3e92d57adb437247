"""Generation by hand, as an oracle: the whole sequence is computed anew for every token, without a cache, with plain torch hooks.

Imports nothing of mainspring. Values and edits are keyed by the text of a site; an edit is a function of the whole tensor
[batch, columns, ...] and of nothing else, so what it does at a column it does in every pass.
"""

import copy

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS

from conformance.zoo import CASES

T5 = ("decoder.block", "layer.0.SelfAttention")
_current = None


def _attention(module, query, key, value, attention_mask, scaling=None, softcap=None, position_bias=None, is_causal=None, **_):
    name = _current.attention.get(module)
    tap = _current.tap if name else lambda at, x: x
    query = tap(f"{name}.q", query.transpose(1, 2)).transpose(1, 2)
    key = tap(f"{name}.k", key.transpose(1, 2)).transpose(1, 2)
    value = tap(f"{name}.v", value.transpose(1, 2)).transpose(1, 2)
    group = query.shape[1] // key.shape[1]
    heads = [h // group for h in range(query.shape[1])]
    scores = torch.einsum("bhqd,bhkd->bhqk", query, key[:, heads]) * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    if position_bias is not None:
        scores = scores + position_bias
    if attention_mask is not None:
        scores = torch.where(attention_mask < -1e30, float("-inf"), scores)
    scores = tap(f"{name}.scores", scores)
    dead = (scores == float("-inf")).all(-1, keepdim=True)
    pattern = torch.softmax(torch.where(dead, torch.zeros_like(scores), scores), -1) * ~dead
    pattern = tap(f"{name}.pattern", pattern)
    return tap(f"{name}.z", torch.einsum("bhqk,bhkd->bqhd", pattern, value[:, heads])).contiguous(), pattern


AttentionInterface.register("recompute_oracle", _attention)
AttentionMaskInterface.register("recompute_oracle", ALL_MASK_ATTENTION_FUNCTIONS["eager"])


class Recompute:
    """A copy of a zoo model. `run(inputs, edits)` gives logits [batch, columns, vocab] and fills `values`."""

    def __init__(self, family):
        case = CASES[family]
        self.family, self.kind, self.module = family, case.kind, case.build()
        self.edits, self.values, self.attention = {}, {}, {}
        if case.kind != "state-space":
            self.module.set_attn_implementation("recompute_oracle")
        layers, attn = T5 if family == "t5" else (case.facts["paths"]["layers"], case.facts["paths"].get("attn"))
        for i, layer in enumerate(self.module.get_submodule(layers)):
            layer.register_forward_hook(self._after(f"layers.{i}.resid_post"))
            if attn is not None:
                self.attention[layer.get_submodule(attn)] = f"layers.{i}.attn"

    def tap(self, name, value):
        if name in self.edits:
            value = self.edits[name](value.clone())
        self.values[name] = value
        return value

    def _after(self, name):
        def hook(module, args, out):
            return (self.tap(name, out[0]), *out[1:]) if isinstance(out, tuple) else self.tap(name, out)

        return hook

    @torch.no_grad()
    def run(self, inputs, edits=None):
        global _current
        self.edits, self.values = dict(edits or {}), {}
        _current = self
        try:
            logits = self.tap("logits", self.module(**inputs, use_cache=False).logits)
        finally:
            _current = None
        assert set(self.edits) <= set(self.values), f"the oracle has no {set(self.edits) - set(self.values)}"
        return logits

    def generate(self, inputs, n, edits=None):
        """The n likeliest tokens of each row; `values` are then those of the pass that gave the last one."""
        new = torch.empty(self.batch(inputs), 0, dtype=torch.long)
        for _ in range(n):
            logits = self.run(self.grown(inputs, new), edits)
            new = torch.cat([new, logits[:, -1].argmax(-1, keepdim=True)], dim=1)
        return new

    def batch(self, inputs):
        return len(inputs["input_ids"])

    def grown(self, inputs, new):
        """The inputs continued by `new` tokens."""
        out, ones = dict(inputs), torch.ones_like(new)
        if self.kind == "encoder-decoder":
            start = torch.full((len(new), 1), self.module.config.decoder_start_token_id)
            out["decoder_input_ids"] = torch.cat([inputs.get("decoder_input_ids", start), new], 1)
            return out
        out["attention_mask"] = torch.cat([inputs.get("attention_mask", torch.ones_like(inputs["input_ids"])), ones], 1)
        out["input_ids"] = torch.cat([inputs["input_ids"], new], 1)
        for name in ("token_type_ids", "mm_token_type_ids"):
            if name in inputs:
                out[name] = torch.cat([inputs[name], 0 * ones], 1)
        if self.kind == "decoder" or self.family == "llava":
            out["position_ids"] = (out["attention_mask"].cumsum(1) - 1).clamp(min=0)
        return out


def prompts(family):
    """A batch padded on the left, the same rows alone, and where each row begins."""
    batch, alone = CASES[family].batch("left")
    if CASES[family].kind == "encoder-decoder":  # the target is what is generated
        batch, *alone = ({k: v for k, v in x.items() if not k.startswith("decoder")} for x in (batch, *alone))
    return copy.deepcopy(batch), alone, [int(row.argmax()) for row in batch["attention_mask"]]
