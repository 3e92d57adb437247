"""interp-engine: ``capture`` on its eager backend; it hooks only what is asked and returns clones."""

from __future__ import annotations

from functools import cached_property
from typing import ClassVar

import interp_engine as ie
import torch

from cases import HEAD, TOKEN, Case
from contenders.base import Contender, Run, split_heads
from contenders.stub_tokenizer import stub_tokenizer


def engine(module: torch.nn.Module, *, requires_grad: bool = False) -> ie.EagerModel:
    """An engine over a model in memory; the name of the model is only a label."""
    return ie.EagerModel("gpt2", hf_model=module, tokenizer=stub_tokenizer(), requires_grad=requires_grad)


class Adapter(Contender):
    """Every run reaches the logits: the eager backend has no early stop."""

    packages = ("interp-engine",)
    reasons: ClassVar = {"read_one_stop": "capture has no early stop"}
    remarks: ClassVar = {
        "patch": "steering has no set operation, so this is one write through its HookManager on the bare "
        "model: a plain hook placed by its point table",
        "gradients": "capture(detach=False) on an engine with requires_grad=True, then torch.autograd.grad",
    }

    @cached_property
    def model(self) -> ie.EagerModel:
        return engine(self.module)

    @cached_property
    def eager(self) -> ie.EagerModel:
        return engine(self.eager_module)

    @cached_property
    def differentiable(self) -> ie.EagerModel:
        return engine(self.make_model(), requires_grad=True)

    def nothing(self, case: Case) -> Run:
        return self._read(self.model, case, [])

    def read_one(self, case: Case) -> Run:
        return self._read(self.model, case, [ie.Address("resid_post", case.middle)])

    def read_all(self, case: Case) -> Run:
        return self._read(self.model, case, _everywhere("resid_post", case))

    def patch(self, case: Case) -> Run:
        model = self.model
        module, side = model.resolve_point("resid_post", case.middle)

        def replace(value: torch.Tensor) -> torch.Tensor:
            value[:, -1] = case.stored
            return value

        def run() -> list[torch.Tensor]:
            with ie.HookManager() as hooks:
                hooks.write(module, replace, point=side)
                return [model.hf_model(case.ids).logits]

        return run

    def gradients(self, case: Case) -> Run:
        points = _everywhere("resid_post", case)
        model = self.differentiable

        def run() -> list[torch.Tensor]:
            cache = ie.capture(model, case.ids, points, detach=False)
            logit = cache.output.logits[:, -1, TOKEN].sum()
            return list(torch.autograd.grad(logit, [cache[point] for point in points]))

        return run

    def z_one(self, case: Case) -> Run:
        point = ie.Address("z", case.middle)

        def run() -> list[torch.Tensor]:
            cache = ie.capture(self.model, case.ids, [point])
            return [split_heads(cache[point], case.heads)[:, :, HEAD], cache.output.logits]

        return run

    def z_all(self, case: Case) -> Run:
        points = _everywhere("z", case)

        def run() -> list[torch.Tensor]:
            cache = ie.capture(self.model, case.ids, points)
            return [*(split_heads(cache[point], case.heads) for point in points), cache.output.logits]

        return run

    def pattern(self, case: Case) -> Run:
        return self._read(self.eager, case, [ie.Address("attn_probs", case.middle)])

    def _read(self, model: ie.EagerModel, case: Case, points: list[ie.Address]) -> Run:
        def run() -> list[torch.Tensor]:
            cache = ie.capture(model, case.ids, points)
            return [*(cache[point] for point in points), cache.output.logits]

        return run


def _everywhere(name: str, case: Case) -> list[ie.Address]:
    return [ie.Address(name, layer) for layer in range(case.layers)]
