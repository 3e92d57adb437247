"""pyvene: an ``IntervenableModel`` per experiment, built once and run many times."""

from __future__ import annotations

from typing import ClassVar

import pyvene as pv
import torch

from cases import HEAD, TOKEN, Case
from contenders.base import Cannot, Contender, Run, split_heads

NO_PATTERN = "its attention_weight hook sits on the attn_dropout module, which transformers 5 does not call"


def collecting(module: torch.nn.Module, components: list[str]) -> pv.IntervenableModel:
    """A model that collects the whole output (or input) of each component."""
    parts = [{"component": name, "intervention": pv.CollectIntervention()} for name in components]
    return pv.IntervenableModel(parts, model=module)


class Adapter(Contender):
    """Collects whole tensors: collecting chosen positions costs more."""

    packages = ("pyvene",)
    reasons: ClassVar = {"read_one_stop": "no early stop"}
    remarks: ClassVar = {
        "gradients": "collected values lie outside the graph, so an intervention puts a copy into it; "
        "then torch.autograd.grad",
    }

    def nothing(self, case: Case) -> Run:
        model = pv.IntervenableModel([], model=self.module)
        return lambda: [model({"input_ids": case.ids})[0].logits]

    def read_one(self, case: Case) -> Run:
        return self._read(case, [_residual(case.middle)])

    def read_all(self, case: Case) -> Run:
        return self._read(case, [_residual(layer) for layer in range(case.layers)])

    def patch(self, case: Case) -> Run:
        part = {
            "layer": case.middle,
            "component": "block_output",
            "intervention_type": pv.VanillaIntervention,
        }
        model = pv.IntervenableModel(part, model=self.module)
        where = {"sources->base": (case.last, case.last)}
        key, stored = model.sorted_keys[0], case.stored[:, None]

        def run() -> list[torch.Tensor]:
            sources = {key: stored}  # emptied by the run
            _, output = model({"input_ids": case.ids}, unit_locations=where, source_representations=sources)
            return [output.logits]

        return run

    def gradients(self, case: Case) -> Run:
        values: dict[int, torch.Tensor] = {}

        def keeper(layer: int):
            def keep(value, _source):
                values[layer] = value.clone()
                return values[layer]

            return keep

        parts = [{"component": _residual(k), "intervention": keeper(k)} for k in range(case.layers)]
        model = pv.IntervenableModel(parts, model=self.make_model())
        model.enable_model_gradients()
        model.model.eval()  # enabling gradients also put it into training mode

        def run() -> list[torch.Tensor]:
            _, output = model({"input_ids": case.ids})
            logit = output.logits[:, -1, TOKEN].sum()
            return list(torch.autograd.grad(logit, [values[layer] for layer in range(case.layers)]))

        return run

    def z_one(self, case: Case) -> Run:
        model = collecting(self.module, [_merged_z(case.middle)])

        def run() -> list[torch.Tensor]:
            (_, (merged,)), output = model({"input_ids": case.ids})
            return [split_heads(merged, case.heads)[:, :, HEAD], output.logits]

        return run

    def z_all(self, case: Case) -> Run:
        model = collecting(self.module, [_merged_z(layer) for layer in range(case.layers)])

        def run() -> list[torch.Tensor]:
            (_, collected), output = model({"input_ids": case.ids})
            return [*(split_heads(z, case.heads) for z in collected), output.logits]

        return run

    def pattern(self, case: Case) -> Run:
        part = {
            "layer": case.middle,
            "component": "attention_weight",
            "intervention_type": pv.CollectIntervention,
        }
        model = pv.IntervenableModel(part, model=self.eager_module)

        def run() -> list[torch.Tensor]:
            try:
                (_, collected), output = model({"input_ids": case.ids})
            except KeyError as error:
                raise Cannot(NO_PATTERN) from error
            return [*collected, output.logits]

        return run

    def _read(self, case: Case, components: list[str]) -> Run:
        model = collecting(self.module, components)

        def run() -> list[torch.Tensor]:
            (_, collected), output = model({"input_ids": case.ids})
            return [*collected, output.logits]

        return run


def _residual(layer: int) -> str:
    return f"transformer.h[{layer}].output"


def _merged_z(layer: int) -> str:
    return f"transformer.h[{layer}].attn.c_proj.input"
