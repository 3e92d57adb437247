"""mainspring."""

from __future__ import annotations

from functools import cached_property

import mainspring as ms
import torch
from mainspring import at

from cases import HEAD, TOKEN, Case
from contenders.base import Contender, Run


class Adapter(Contender):
    """Each task is one ``model.run``; ``until="end"`` asks for the logits, ``"auto"`` stops early."""

    packages = ("mainspring",)

    @cached_property
    def model(self):
        return ms.wrap(self.module)

    @cached_property
    def frozen(self):
        return ms.wrap(self.frozen_module)

    def nothing(self, case: Case) -> Run:
        return lambda: [self.model.run(case.ids, until="end").logits]

    def read_one(self, case: Case) -> Run:
        return self._read(case, at.layers[case.middle].resid_post)

    def read_one_stop(self, case: Case) -> Run:
        site = at.layers[case.middle].resid_post
        return lambda: [self.model.run(case.ids, read=site)[site]]

    def read_all(self, case: Case) -> Run:
        return self._read_layers(case, at.layers[:].resid_post, _residuals(case))

    def patch(self, case: Case) -> Run:
        edit = at.layers[case.middle].resid_post(pos=-1).set(case.stored)
        return lambda: [self.model.run(case.ids, edits=[edit], until="end").logits]

    def gradients(self, case: Case) -> Run:
        everywhere, each = at.layers[:].resid_post, _residuals(case)

        def logit(trace) -> torch.Tensor:
            return trace.logits[:, -1, TOKEN].sum()

        def run() -> list[torch.Tensor]:
            trace = self.frozen.run(case.ids, read=everywhere, grad_of=logit)
            return [trace.grad[site] for site in each]

        return run

    def z_one(self, case: Case) -> Run:
        return self._read(case, at.layers[case.middle].attn.z(head=HEAD))

    def z_all(self, case: Case) -> Run:
        each = [at.layers[layer].attn.z for layer in range(case.layers)]
        return self._read_layers(case, at.layers[:].attn.z, each)

    def pattern(self, case: Case) -> Run:
        return self._read(case, at.layers[case.middle].attn.pattern)

    def _read(self, case: Case, site) -> Run:
        def run() -> list[torch.Tensor]:
            trace = self.model.run(case.ids, read=site, until="end")
            return [trace[site], trace.logits]

        return run

    def _read_layers(self, case: Case, everywhere, each: list) -> Run:
        def run() -> list[torch.Tensor]:
            trace = self.model.run(case.ids, read=everywhere, until="end")
            return [*(trace[site] for site in each), trace.logits]

        return run


def _residuals(case: Case) -> list:
    return [at.layers[layer].resid_post for layer in range(case.layers)]
