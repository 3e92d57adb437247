"""nnsight: the block under ``trace`` runs interleaved with the forward pass."""

from __future__ import annotations

from functools import cached_property
from typing import ClassVar

import torch
from nnsight import NNsight

from cases import HEAD, TOKEN, Case
from contenders.base import Contender, Run, split_heads


class Adapter(Contender):
    """``NNsight`` around the module itself, so that no tokenizer is in the way."""

    packages = ("nnsight",)
    remarks: ClassVar = {
        "gradients": "torch.autograd.grad inside the trace: faster than its own backward trace",
        "pattern": "read from the attention module of a model loaded with eager attention",
    }

    @cached_property
    def model(self) -> NNsight:
        return NNsight(self.module)

    @cached_property
    def frozen(self) -> NNsight:
        return NNsight(self.frozen_module)

    @cached_property
    def eager(self) -> NNsight:
        return NNsight(self.eager_module)

    def nothing(self, case: Case) -> Run:
        model = self.model

        def run() -> list[torch.Tensor]:
            with model.trace(case.ids):
                logits = model.output.logits.save()
            return [logits]

        return run

    def read_one(self, case: Case) -> Run:
        model = self.model

        def run() -> list[torch.Tensor]:
            with model.trace(case.ids):
                value = model.transformer.h[case.middle].output.save()
                logits = model.output.logits.save()
            return [value, logits]

        return run

    def read_one_stop(self, case: Case) -> Run:
        model = self.model

        def run() -> list[torch.Tensor]:
            with model.trace(case.ids) as tracer:
                value = model.transformer.h[case.middle].output.save()
                tracer.stop()
            return [value]

        return run

    def read_all(self, case: Case) -> Run:
        model = self.model

        def run() -> list[torch.Tensor]:
            with model.trace(case.ids):
                values = [block.output for block in model.transformer.h].save()
                logits = model.output.logits.save()
            return [*values, logits]

        return run

    def patch(self, case: Case) -> Run:
        model = self.model

        def run() -> list[torch.Tensor]:
            with model.trace(case.ids):
                model.transformer.h[case.middle].output[:, -1] = case.stored
                logits = model.output.logits.save()
            return [logits]

        return run

    def gradients(self, case: Case) -> Run:
        model = self.frozen

        def run() -> list[torch.Tensor]:
            with model.trace(case.ids):
                values = [model.transformer.h[0].output.requires_grad_()]
                values += [block.output for block in model.transformer.h[1:]]
                logit = model.output.logits[:, -1, TOKEN].sum()
                grads = list(torch.autograd.grad(logit, values)).save()
            return grads

        return run

    def z_one(self, case: Case) -> Run:
        model = self.model

        def run() -> list[torch.Tensor]:
            with model.trace(case.ids):
                merged = model.transformer.h[case.middle].attn.c_proj.input.save()
                logits = model.output.logits.save()
            return [split_heads(merged, case.heads)[:, :, HEAD], logits]

        return run

    def z_all(self, case: Case) -> Run:
        model = self.model

        def run() -> list[torch.Tensor]:
            with model.trace(case.ids):
                merged = [block.attn.c_proj.input for block in model.transformer.h].save()
                logits = model.output.logits.save()
            return [*(split_heads(z, case.heads) for z in merged), logits]

        return run

    def pattern(self, case: Case) -> Run:
        model = self.eager

        def run() -> list[torch.Tensor]:
            with model.trace(case.ids):
                value = model.transformer.h[case.middle].attn.output[1].save()
                logits = model.output.logits.save()
            return [value, logits]

        return run
