"""A witness: what the sites of a model should hold, from plain torch hooks, plain torch maths and the facts of a case.

Imports nothing of mainspring. `Witness(case).run(inputs)` gives a tensor for every site that it knows, by the site's text; a
value may be changed on its way (`edits`) or stay in the autograd graph (`grad`). Attention is computed by a function written out
here that is registered with transformers; where a model computes attention itself, its pattern is what its dropout module is
given, or follows from what torch's fused kernel is given.
"""

from collections import Counter

import torch
from torch import nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS

_current = None
"""The witness that runs just now."""

PROJECTIONS = {
    "q": ("q_proj", "query", "q_lin", "q"), "k": ("k_proj", "key", "k_lin", "k"), "v": ("v_proj", "value", "v_lin", "v"),
}  # fmt: skip
UP = ("c_fc", "fc1", "dense_h_to_4h", "fc_in", "lin1", "linear_fc1", "wi", "intermediate.dense")


def _attention(module, query, key, value, attention_mask=None, scaling=None, softcap=None, position_bias=None, **_):
    return _current.attend(module, query, key, value, attention_mask, scaling, softcap, position_bias)


AttentionInterface.register("witness", _attention)
AttentionMaskInterface.register("witness", ALL_MASK_ATTENTION_FUNCTIONS["eager"])


def stacks(case):
    """(prefix of the sites, path of the layers, names below a layer, heads) of every stack of a case."""
    facts, paths = case.facts, case.facts.get("paths", {})
    if case.kind == "encoder-decoder":
        cross = {"cross": "layer.1.EncDecAttention", "cross_out": "layer.1.EncDecAttention.o"}
        names = {"attn": "layer.0.SelfAttention", "attn_out": "layer.0.SelfAttention.o", "mlp": "layer.-1.DenseReluDense"}
        names["mlp_out"] = "layer.-1.DenseReluDense.wo"
        return [("", "decoder.block", {**names, **cross}, facts["heads"]), ("encoder.", "encoder.block", names, facts["heads"])]
    if case.kind == "dual":
        return [("", paths["text"], paths, facts["heads"]), ("vision.", paths["vision"], paths, facts["heads"])]
    out = [("", paths["layers"], paths, facts["heads"])]
    if case.kind == "vision-language":
        names = {"attn": paths["vision_attn"], "attn_out": paths["vision_attn_out"], "mlp": "mlp"}
        names["mlp_out"] = paths.get("vision_mlp_out", "mlp.fc2")
        out.append(("vision.", paths["vision"], names, facts["vision_heads"]))
    return out


def submodule(module, path):
    """By dotted path; None where it does not exist. A number indexes a list."""
    for word in path.split(".") if path else ():
        if word.lstrip("-").isdigit():
            module = module[int(word)] if isinstance(module, nn.ModuleList) else None
        else:
            module = getattr(module, word, None)
        if not isinstance(module, nn.Module):
            return None
    return module


class Witness:
    """Hooks a new copy of a case's model. `passed` holds the very tensors that went on, before they got their site's shape."""

    def __init__(self, case, dtype=torch.float32):
        self.case, self.facts = case, case.facts
        self.module = case.build().to(dtype)
        self.edits, self.values, self.visits, self.where = {}, {}, Counter(), {}
        for m in self.module.modules():
            if case.facts.get("registry") and hasattr(getattr(m, "config", None), "_attn_implementation"):
                m.config._attn_implementation = "witness"
        for prefix, path, names, heads in stacks(case):
            for index, layer in enumerate(self.module.get_submodule(path)):
                self._hook_layer(f"{prefix}layers.{index}.", layer, names, heads, embed=f"{prefix}embed" if index == 0 else None)
        paths = self.facts.get("paths", {})
        if paths.get("final_norm") and case.kind not in ("vision-language", "dual"):
            self._output(self.module.get_submodule(paths["final_norm"]), "final_norm")
        elif case.kind == "vision-language":
            self._output(self.module.get_submodule(paths["final_norm"]), "final_norm")
            self._output(self.module.get_submodule(paths["projector"]), "projector")

    # ---- running ----

    def run(self, inputs, edits=None, grad=False):
        """Values by site, after the edits: functions of the whole tensor of a site."""
        global _current
        self.edits, self.values, self.visits = dict(edits or {}), {}, Counter()
        fused, _current = nn.functional.scaled_dot_product_attention, self
        nn.functional.scaled_dot_product_attention = self._fused(fused)
        try:
            with torch.set_grad_enabled(grad):
                self.output = self.module(**inputs)
                if isinstance(getattr(self.output, "logits", None), torch.Tensor):
                    self.tap("logits", self.output.logits)
        finally:
            nn.functional.scaled_dot_product_attention, _current = fused, None
        unused = set(self.edits) - set(self.values)
        assert not unused, f"the witness has no {unused}"
        for site, count in self.visits.items():
            if count > 1:  # run in slices, or once for each image: no one tensor is the site's
                self.values.pop(site, None)
        self.passed = dict(self.values)
        self._derive()
        return self.values

    def answer(self):
        """What the model computes."""
        for name in ("logits", "last_hidden_state", "logits_per_image"):
            if isinstance(getattr(self.output, name, None), torch.Tensor):
                return getattr(self.output, name)
        raise AssertionError("the output holds no tensor that is known")

    def tap(self, name, value):
        self.visits[name] += 1
        if name in self.edits:
            value = self.edits[name](value)
        elif value.requires_grad:
            value = value.view_as(value)
        self.values[name] = value if value.requires_grad else value.clone()
        return value

    # ---- attention ----

    def attend(self, module, query, key, value, mask, scaling, softcap, bias):
        at = self.where[module]
        query = self.tap(at + "q", query.transpose(1, 2)).transpose(1, 2)
        key = self.tap(at + "k", key.transpose(1, 2)).transpose(1, 2)
        value = self.tap(at + "v", value.transpose(1, 2)).transpose(1, 2)
        owner = [h // (query.shape[1] // key.shape[1]) for h in range(query.shape[1])]
        scores = query @ key[:, owner].transpose(-1, -2) * (query.shape[-1] ** -0.5 if scaling is None else scaling)
        if softcap is not None:
            scores = softcap * torch.tanh(scores / softcap)
        if bias is not None:
            scores = scores + bias
        if mask is not None:
            scores = torch.where(mask < torch.finfo(mask.dtype).min / 2, float("-inf"), scores)
        scores = self.tap(at + "scores", scores)
        dead = (scores == float("-inf")).all(-1, keepdim=True)
        pattern = torch.softmax(scores.masked_fill(dead, 0.0), -1, dtype=torch.float32).to(query.dtype).masked_fill(dead, 0.0)
        pattern = self.tap(at + "pattern", pattern)
        return (pattern @ value[:, owner]).transpose(1, 2).contiguous(), pattern

    def _fused(self, kernel):
        def watched(query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, **kwargs):
            inside = [at for module, at in self.where.items() if getattr(module, "_witness_running", False)]
            if inside and not self.facts.get("registry"):
                scores = query @ key.transpose(-1, -2) * (query.shape[-1] ** -0.5 if scale is None else scale)
                if is_causal:
                    future = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
                    scores = scores.masked_fill(future, float("-inf"))
                elif attn_mask is not None and attn_mask.dtype == torch.bool:
                    scores = scores.masked_fill(~attn_mask, float("-inf"))
                elif attn_mask is not None:
                    low = torch.finfo(attn_mask.dtype).min / 2
                    scores = torch.where(attn_mask < low, float("-inf"), scores + attn_mask)
                self.values[inside[-1] + "pattern"] = torch.softmax(scores, -1).nan_to_num(0.0)
                self.visits[inside[-1] + "pattern"] += 1
            return kernel(query, key, value, attn_mask, dropout_p, is_causal, scale=scale, **kwargs)

        return watched

    # ---- hooks ----

    def _hook_layer(self, at, layer, names, heads, embed):
        def before(module, args, kwargs):
            named = "hidden_states" in kwargs
            value = kwargs["hidden_states"] if named else args[0]
            self.values["shape of " + at] = value
            if embed:
                value = self.tap(embed, value)
            value = self.tap(at + "resid_pre", value)
            return (args, {**kwargs, "hidden_states": value}) if named else ((value, *args[1:]), kwargs)

        layer.register_forward_pre_hook(before, with_kwargs=True)
        self._output(layer, at + "resid_post")
        for name, sub in layer.named_modules():
            self.where[sub] = at + ("cross." if "EncDec" in name else "attn.")
        for kind in ("attn", "cross"):
            if out := submodule(layer, names.get(f"{kind}_out") or "absent"):
                self._hook_attention(f"{at}{kind}.", layer, submodule(layer, names[kind]), out, heads)
        if self.facts.get("sandwich") and at.startswith("layers"):
            self._output(layer.post_attention_layernorm, at + "attn.add")
            self._output(layer.post_feedforward_layernorm, at + "mlp.add")
        for kind in ("attn", "mlp"):
            if names.get(f"{kind}_add"):
                self._output(submodule(layer, names[f"{kind}_add"]), f"{at}{kind}.add")
        mixer = submodule(layer, names.get("mixer") or "absent")
        if mixer is not None:
            self._output(mixer, at + "ssm.out")
            self._input(submodule(layer, names["mixer_out"]), at + "ssm.y")
        self._hook_mlp(at, layer, names)

    def _hook_attention(self, at, layer, module, out, heads):
        def before(m, args):
            value = args[0].unflatten(-1, (heads, -1))
            return (self.tap(at + "z", value).flatten(-2), *args[1:])

        out.register_forward_pre_hook(before)
        self._output(out, at + "out", weight_of=(out, heads))
        if not self.facts.get("registry"):
            module.register_forward_pre_hook(lambda m, args: setattr(m, "_witness_running", True))
            module.register_forward_hook(lambda m, args, o: setattr(m, "_witness_running", False))
        for sub in module.modules():
            for word, options in PROJECTIONS.items():
                for option in options:
                    if isinstance(getattr(sub, option, None), nn.Linear):
                        getattr(sub, option).register_forward_hook(lambda m, a, o, w=word: self._flat(f"{at}{w}_proj", o))
            drop = getattr(sub, "attn_dropout", getattr(sub, "attention_dropout", None))
            if (
                isinstance(drop, nn.Dropout)
                and not self.facts.get("registry")
                and not self.facts["paths"]["layers"].endswith("blocks")
            ):
                drop.register_forward_pre_hook(lambda m, args: self._flat(at + "pattern", args[0]))
        if self.facts.get("clip_qkv"):  # MPT alone hands its pattern out and has no module that sees it
            module.register_forward_hook(lambda m, args, o: self._flat(at + "pattern", o[1]))

    def _flat(self, name, value):
        self.values[name] = value.detach().clone()
        self.visits[name] += 1

    def _hook_mlp(self, at, layer, names):
        down = submodule(layer, names.get("mlp_out") or "absent")
        mlp = submodule(layer, names["mlp"]) if names.get("mlp") else layer
        if down is None:
            if mlp is not None and mlp is not layer and names.get("mlp"):
                self._output(mlp, at + "mlp.out")  # a mixture of experts
            return
        self._input(down, at + "mlp.post")
        self._output(down, at + "mlp.out")
        if "multipliers" in self.facts:
            self._output(mlp, at + "mlp.add")
            return
        gate, up = submodule(mlp, "gate_proj") or submodule(mlp, "wi_0"), submodule(mlp, "up_proj") or submodule(mlp, "wi_1")
        if gate is None:
            gate, up = next((found for name in UP if (found := submodule(mlp, name)) is not None), None) or up, None
        for module, name in ((gate, "mlp.pre"), (up, "mlp.up")):
            if module is not None:
                module.register_forward_hook(lambda m, a, o, name=name: self._flat(at + name, o))

    def _input(self, module, name):
        module.register_forward_pre_hook(lambda m, args: (self.tap(name, args[0]), *args[1:]))

    def _output(self, module, name, weight_of=None):
        def after(m, args, output):
            if weight_of is not None:
                projection, heads = weight_of
                inward = projection.weight if type(projection).__name__ == "Conv1D" else projection.weight.T
                shares = inward.unflatten(0, (heads, -1))
                z = args[0].unflatten(-1, (heads, -1))
                self._flat(name.replace("out", "head_out"), torch.stack([z[..., h, :] @ shares[h] for h in range(heads)], dim=-2))
            if isinstance(output, torch.Tensor):
                return self.tap(name, output)
            return (self.tap(name, output[0]), *output[1:])

        module.register_forward_hook(after)

    # ---- what follows from what was seen ----

    def _derive(self):
        facts, many = self.facts, self.facts.get("multipliers", {})
        for name in list(self.values):
            if name.startswith("shape of "):
                self._finish(name.removeprefix("shape of "), self.values.pop(name).shape)
        for name, value in list(self.values.items()):
            scales = {
                "attn": many.get("attention_out_multiplier"),
                "ssm": many.get("ssm_out_multiplier"),
                "cross": None,
                "mlp": None,
            }
            for kind, scale in scales.items():
                add = name.replace(".out", ".add")
                if name.endswith(f".{kind}.out") and add not in self.values:
                    usual = facts.get("residual_scale", 1.0) if name.startswith("layers") else 1.0
                    self.values[add] = value * (usual if scale is None else scale)
        for name in ("projector", "vision.embed"):
            if name in self.values and self.values[name].ndim == 2:
                self.values[name] = self.values[name].unsqueeze(0)
        plain = self.case.kind != "state-space" and not any(facts.get(k) for k in ("parallel", "post_norm", "residual_from_norm"))
        for name in [n for n in self.values if n.endswith(".resid_pre")] if plain else []:
            at = name.removesuffix("resid_pre")
            adds = [self.values[at + k] for k in ("attn.add", "cross.add", "ssm.add") if at + k in self.values]
            self.values[at + "resid_mid"] = self.values[name] + sum(adds)

    def _finish(self, at, shape):
        """Tensors without a batch axis, or with tokens and batch in one, get the shape of their layer; projections get heads."""
        for name in [n for n in self.values if n.startswith(at)]:
            value = self.values[name]
            short = name.removeprefix(at)
            if short.startswith("mlp.") and value.ndim == 2 and len(shape) == 3:
                self.values[name] = value = value.unflatten(0, shape[:2])
            if len(shape) == 2 and short not in ("attn.pattern", "attn.scores", "attn.q", "attn.k", "attn.v"):
                self.values[name] = value = value.unsqueeze(0)
            if short.endswith("_proj"):
                z = self.values[at + short.split(".")[0] + ".z"]
                self.values[name] = value.unflatten(-1, (-1, z.shape[-1]))


def worst(found, expected):
    """The largest relative error of a token."""
    assert found.shape == expected.shape, f"shape {list(found.shape)} instead of {list(expected.shape)}"
    a, b = found.detach().double(), expected.detach().double()
    assert torch.equal(a.isinf(), b.isinf()), "infinite in other places"
    a, b = a.masked_fill(a.isinf(), 0.0), b.masked_fill(b.isinf(), 0.0)
    size = b.norm(dim=-1)
    return float(((a - b).norm(dim=-1) / (size + 1e-2 * size.max()).clamp(min=1e-12)).max())
