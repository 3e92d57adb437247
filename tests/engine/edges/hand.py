"""Four decoders of two layers written out by hand in plain torch, from their weights: the oracle of edges. Imports nothing of
ours.

A node's input is the sum of what it is sent, edge by edge: that is all there is to an edge. One text at a time, without
padding.
"""

import functools
import math

import torch
import torch.nn.functional as F
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
)

VOCAB, WIDTH, FF, LAYERS, HEADS = 30, 16, 20, 2, 4
KV = {"gpt2": 4, "llama": 2, "neox": 4, "gemma2": 2}
NONE = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": None}
ROPE = {"rope_type": "default", "rope_theta": 100.0}


def _module(family):
    if family == "gpt2":
        return GPT2LMHeadModel(
            GPT2Config(
                vocab_size=VOCAB, n_positions=32, n_embd=WIDTH, n_layer=LAYERS, n_head=HEADS, n_inner=FF, layer_norm_epsilon=1e-3,
                **NONE,
            )
        )  # fmt: skip
    if family == "neox":
        return GPTNeoXForCausalLM(
            GPTNeoXConfig(
                vocab_size=VOCAB, hidden_size=WIDTH, num_hidden_layers=LAYERS, num_attention_heads=HEADS, intermediate_size=FF,
                layer_norm_eps=1e-3, rope_parameters={**ROPE, "partial_rotary_factor": 0.5}, use_parallel_residual=True, **NONE,
            )
        )  # fmt: skip
    shared = dict(
        vocab_size=VOCAB, hidden_size=WIDTH, num_hidden_layers=LAYERS, num_attention_heads=HEADS, num_key_value_heads=2,
        head_dim=6, intermediate_size=FF, rms_norm_eps=1e-3, attention_bias=True, rope_parameters=ROPE, **NONE,
    )  # fmt: skip
    if family == "llama":
        return LlamaForCausalLM(LlamaConfig(**shared, mlp_bias=True, tie_word_embeddings=False))
    return Gemma2ForCausalLM(
        Gemma2Config(
            **shared, sliding_window=3, query_pre_attn_scalar=9, attn_logit_softcapping=3.0, final_logit_softcapping=5.0,
            layer_types=["sliding_attention", "full_attention"], attn_implementation="eager",
        )
    )  # fmt: skip


@functools.cache
def build(family):
    """A module with random weights everywhere, biases and gains included."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(1)
        module = _module(family).eval()
        for name, p in module.named_parameters():
            if p.ndim > 1:
                p.normal_(0, 1.2 * (p.shape[0] if "c_" in name else p.shape[1]) ** -0.5)
            else:
                p.add_(0.3 * torch.randn_like(p))
            if "wte" in name or "embed" in name:
                p.mul_(3)
    return module


def senders():
    yield ("embed",)
    for layer in range(LAYERS):
        yield from ((("head", layer, h)) for h in range(HEADS))
        yield ("mlp", layer)


class Hand:
    """`run(tokens, seen)`: logits, and what every node sent. `seen(receiver, sender)` says what the receiver gets in its place.

    Receivers are ("q", layer, head), ("k", layer, kv_head), ("v", layer, kv_head), ("mlp", layer) and ("logits",).
    """

    def __init__(self, family):
        self.family, self.w = family, {k: v.detach() for k, v in build(family).state_dict().items()}
        self.kv = KV[family]
        self.parallel = family == "neox"
        self.head_dim = {"gpt2": 4, "neox": 4}.get(family, 6)

    # ---- the pieces ----

    def at(self, layer, name):
        prefix = {"gpt2": "transformer.h", "neox": "gpt_neox.layers"}.get(self.family, "model.layers")
        return self.w.get(f"{prefix}.{layer}.{name}")

    def layer_norm(self, x, w, b):
        x = x - x.mean(-1, keepdim=True)
        return x / (x.pow(2).mean(-1, keepdim=True) + 1e-3).sqrt() * w + b

    def rms(self, x):
        return (x.pow(2).mean(-1, keepdim=True) + 1e-3).sqrt()

    def norm(self, x, layer, name):
        if self.family in ("gpt2", "neox"):
            return self.layer_norm(x, self.at(layer, name + ".weight"), self.at(layer, name + ".bias"))
        gain = self.at(layer, name + ".weight")
        return x / self.rms(x) * (1 + gain if self.family == "gemma2" else gain)

    def embed(self, tokens):
        if self.family == "gpt2":
            return self.w["transformer.wte.weight"][tokens] + self.w["transformer.wpe.weight"][: len(tokens)]
        if self.family == "neox":
            return self.w["gpt_neox.embed_in.weight"][tokens]
        return self.w["model.embed_tokens.weight"][tokens] * (math.sqrt(WIDTH) if self.family == "gemma2" else 1)

    def project(self, part, layer, head, x):
        """A head's q, k or v from the stream that it sees."""
        d = self.head_dim
        if self.family == "gpt2":
            x = self.norm(x, layer, "ln_1")
            start = "qkv".index(part) * WIDTH + head * d
            mine = slice(start, start + d)
            return x @ self.at(layer, "attn.c_attn.weight")[:, mine] + self.at(layer, "attn.c_attn.bias")[mine]
        x = self.norm(x, layer, "input_layernorm")
        if self.family == "neox":
            start = head * 3 * d + "qkv".index(part) * d
            name = "attention.query_key_value"
        else:
            start, name = head * d, f"self_attn.{part}_proj"
        return x @ self.at(layer, name + ".weight")[start : start + d].T + self.at(layer, name + ".bias")[start : start + d]

    def rotate(self, x):
        n = {"neox": 2, "gpt2": 0}.get(self.family, 6)
        if n == 0:
            return x
        angles = torch.arange(len(x))[:, None] * 100.0 ** (-torch.arange(0, n, 2) / n)
        cos, sin = angles.cos().repeat(1, 2), angles.sin().repeat(1, 2)
        turned, rest = x[:, :n], x[:, n:]
        half = torch.cat([-turned[:, n // 2 :], turned[:, : n // 2]], -1)
        return torch.cat([turned * cos + half * sin, rest], -1)

    def mix(self, layer, q, k, v):
        scale = 9**-0.5 if self.family == "gemma2" else self.head_dim**-0.5
        scores = self.rotate(q) @ self.rotate(k).T * scale
        n = len(q)
        if self.family == "gemma2":
            scores = 3.0 * torch.tanh(scores / 3.0)
        distance = torch.arange(n)[:, None] - torch.arange(n)[None]
        closed = distance < 0
        if self.family == "gemma2" and layer == 0:
            closed |= distance >= 3
        return scores.masked_fill(closed, -math.inf).softmax(-1) @ v

    def head_out(self, layer, head, z):
        d = self.head_dim
        if self.family == "gpt2":
            return z @ self.at(layer, "attn.c_proj.weight")[head * d : (head + 1) * d]
        name = "attention.dense" if self.family == "neox" else "self_attn.o_proj"
        return z @ self.at(layer, name + ".weight")[:, head * d : (head + 1) * d].T

    def attention_bias(self, layer):
        name = {"gpt2": "attn.c_proj", "neox": "attention.dense"}.get(self.family, "self_attn.o_proj")
        return self.at(layer, name + ".bias")

    def mlp(self, layer, x):
        if self.family == "gpt2":
            x = self.norm(x, layer, "ln_2")
            h = F.gelu(x @ self.at(layer, "mlp.c_fc.weight") + self.at(layer, "mlp.c_fc.bias"), approximate="tanh")
            return h @ self.at(layer, "mlp.c_proj.weight") + self.at(layer, "mlp.c_proj.bias")
        if self.family == "neox":
            x = self.norm(x, layer, "post_attention_layernorm")
            h = F.gelu(x @ self.at(layer, "mlp.dense_h_to_4h.weight").T + self.at(layer, "mlp.dense_h_to_4h.bias"))
            return h @ self.at(layer, "mlp.dense_4h_to_h.weight").T + self.at(layer, "mlp.dense_4h_to_h.bias")
        x = self.norm(x, layer, "pre_feedforward_layernorm" if self.family == "gemma2" else "post_attention_layernorm")

        def linear(y, name):
            bias = self.at(layer, f"mlp.{name}.bias")
            return y @ self.at(layer, f"mlp.{name}.weight").T + (0 if bias is None else bias)

        gate = linear(x, "gate_proj")
        gate = F.gelu(gate, approximate="tanh") if self.family == "gemma2" else F.silu(gate)
        out = linear(gate * linear(x, "up_proj"), "down_proj")
        return self.norm(out, layer, "post_feedforward_layernorm") if self.family == "gemma2" else out

    def logits(self, x):
        if self.family == "gpt2":
            x = self.layer_norm(x, self.w["transformer.ln_f.weight"], self.w["transformer.ln_f.bias"])
            return x @ self.w["transformer.wte.weight"].T
        if self.family == "neox":
            x = self.layer_norm(x, self.w["gpt_neox.final_layer_norm.weight"], self.w["gpt_neox.final_layer_norm.bias"])
            return x @ self.w["lm_head.weight"].T
        gain = self.w["model.norm.weight"]
        x = x / self.rms(x) * (1 + gain if self.family == "gemma2" else gain) @ self.w["lm_head.weight"].T
        return 5.0 * torch.tanh(x / 5.0) if self.family == "gemma2" else x

    # ---- the graph ----

    def run(self, tokens, seen=lambda receiver, sender, value: value, embed=None):
        tokens = torch.as_tensor(tokens)
        sent, bias = {("embed",): self.embed(tokens) if embed is None else embed}, 0.0

        def stream(receiver, bias):
            return bias + sum(seen(receiver, sender, value) for sender, value in sent.items())

        group = HEADS // self.kv
        for layer in range(LAYERS):
            k, v = ([self.project(part, layer, g, stream((part, layer, g), bias)) for g in range(self.kv)] for part in "kv")
            q = [self.project("q", layer, h, stream(("q", layer, h), bias)) for h in range(HEADS)]
            out = [self.head_out(layer, h, self.mix(layer, q[h], k[h // group], v[h // group])) for h in range(HEADS)]
            added = self.attention_bias(layer)
            if self.family == "gemma2":
                scale = (1 + self.at(layer, "post_attention_layernorm.weight")) / self.rms(sum(out) + added)
                out, added = [o * scale for o in out], added * scale
            if self.parallel:
                mlp = self.mlp(layer, stream(("mlp", layer), bias))
            sent |= {("head", layer, h): o for h, o in enumerate(out)}
            bias = bias + added
            if not self.parallel:
                mlp = self.mlp(layer, stream(("mlp", layer), bias))
            sent["mlp", layer] = mlp
        return self.logits(stream(("logits",), bias)), sent

    def receivers(self):
        for layer in range(LAYERS):
            yield from (("q", layer, h) for h in range(HEADS))
            yield from ((part, layer, g) for part in "kv" for g in range(self.kv))
            yield ("mlp", layer)
        yield ("logits",)

    def edges(self):
        """Every pair of the graph, by reading off which senders a receiver sums over."""
        found = []
        self.run([1, 2], lambda receiver, sender, value: (found.append((sender, receiver)), value)[1])
        return found

    def patched(self, tokens, other, edges):
        """Logits of `tokens` when `edges` carry what their senders send in `other`, a list of (sender, receiver)."""
        sent, edges = self.run(other)[1], set(edges)
        return self.run(tokens, lambda receiver, sender, value: sent[sender] if (sender, receiver) in edges else value)[0]
