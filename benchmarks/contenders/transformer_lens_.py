"""TransformerLens 4: a bridge over the HuggingFace module. It always uses explicit (eager) attention."""

from __future__ import annotations

from functools import cached_property
from typing import ClassVar

import torch
from transformer_lens.model_bridge import TransformerBridge

from cases import HEAD, TOKEN, Case
from contenders.base import Contender, Run
from contenders.stub_tokenizer import stub_tokenizer


def boot(module: torch.nn.Module) -> TransformerBridge:
    return TransformerBridge.boot_transformers("gpt2", hf_model=module, tokenizer=stub_tokenizer())


class Adapter(Contender):
    """``run_with_cache`` with a filter for reads, ``run_with_hooks`` for the patch and for gradients."""

    packages = ("transformer-lens",)
    remarks: ClassVar = {
        "nothing": "the bridge always uses eager attention",
        "gradients": "its cache is detached, so hooks keep the live values; then torch.autograd.grad",
    }

    @cached_property
    def bridge(self) -> TransformerBridge:
        return boot(self.module)

    @cached_property
    def frozen(self) -> TransformerBridge:
        return boot(self.make_model()).requires_grad_(False)

    def nothing(self, case: Case) -> Run:
        return lambda: [self.bridge(case.ids)]

    def read_one(self, case: Case) -> Run:
        return self._read(case, [_residual(case.middle)])

    def read_one_stop(self, case: Case) -> Run:
        name = _residual(case.middle)

        def run() -> list[torch.Tensor]:
            _, cache = self.bridge.run_with_cache(case.ids, names_filter=name, stop_at_layer=case.middle + 1)
            return [cache[name]]

        return run

    def read_all(self, case: Case) -> Run:
        return self._read(case, [_residual(layer) for layer in range(case.layers)])

    def patch(self, case: Case) -> Run:
        def replace(value, hook):
            value[:, -1] = case.stored
            return value

        hooks = [(_residual(case.middle), replace)]
        return lambda: [self.bridge.run_with_hooks(case.ids, fwd_hooks=hooks)]

    def gradients(self, case: Case) -> Run:

        def run() -> list[torch.Tensor]:
            values: list[torch.Tensor] = []

            def keep(value, hook):
                values.append(value if values else value.requires_grad_())

            hooks = [(_residual(layer), keep) for layer in range(case.layers)]
            logits = self.frozen.run_with_hooks(case.ids, fwd_hooks=hooks)
            return list(torch.autograd.grad(logits[:, -1, TOKEN].sum(), values))

        return run

    def z_one(self, case: Case) -> Run:
        name = f"blocks.{case.middle}.attn.hook_z"

        def run() -> list[torch.Tensor]:
            logits, cache = self.bridge.run_with_cache(case.ids, names_filter=name)
            return [cache[name][:, :, HEAD], logits]

        return run

    def z_all(self, case: Case) -> Run:
        return self._read(case, [f"blocks.{layer}.attn.hook_z" for layer in range(case.layers)])

    def pattern(self, case: Case) -> Run:
        return self._read(case, [f"blocks.{case.middle}.attn.hook_pattern"])

    def _read(self, case: Case, names: list[str]) -> Run:
        def run() -> list[torch.Tensor]:
            logits, cache = self.bridge.run_with_cache(case.ids, names_filter=names)
            return [*(cache[name] for name in names), logits]

        return run


def _residual(layer: int) -> str:
    return f"blocks.{layer}.hook_resid_post"
