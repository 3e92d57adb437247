"""Plain torch hooks, written by hand as well as we can: what a careful user does without a library."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from cases import HEAD, TOKEN, Case
from contenders.base import Contender, Run, split_heads


class _Stop(Exception):
    """Raised by a hook to leave the forward pass."""


@contextmanager
def hooked(*pairs: tuple[torch.nn.Module, Callable]) -> Iterator[None]:
    """Forward hooks that are gone when the block ends."""
    handles = [module.register_forward_hook(hook) for module, hook in pairs]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


class Adapter(Contender):
    """Also the reference: every contender's numbers are compared with these."""

    def nothing(self, case: Case) -> Run:
        module = self.module
        return lambda: [module(case.ids).logits]

    def read_one(self, case: Case) -> Run:
        return lambda: self._residuals(case, [case.middle])

    def read_all(self, case: Case) -> Run:
        return lambda: self._residuals(case, range(case.layers))

    def read_one_stop(self, case: Case) -> Run:
        module = self.module
        block = module.transformer.h[case.middle]
        found: list[torch.Tensor] = []

        def keep_and_stop(_module, _args, output):
            found.append(output)
            raise _Stop

        def run() -> list[torch.Tensor]:
            found.clear()
            try:
                with hooked((block, keep_and_stop)):
                    module(case.ids)
            except _Stop:
                pass
            return list(found)

        return run

    def patch(self, case: Case) -> Run:
        module = self.module
        block = module.transformer.h[case.middle]

        def replace(_module, _args, output):
            output[:, -1] = case.stored
            return output

        def run() -> list[torch.Tensor]:
            with hooked((block, replace)):
                return [module(case.ids).logits]

        return run

    def gradients(self, case: Case) -> Run:
        module = self.frozen_module
        blocks = module.transformer.h

        def run() -> list[torch.Tensor]:
            values: list[torch.Tensor] = []

            def keep(_module, _args, output):
                values.append(output if values else output.requires_grad_())

            with hooked(*((block, keep) for block in blocks)):
                logits = module(case.ids).logits
            return list(torch.autograd.grad(logits[:, -1, TOKEN].sum(), values))

        return run

    def z_one(self, case: Case) -> Run:
        def run() -> list[torch.Tensor]:
            z, logits = self._merged_z(case, [case.middle])
            return [split_heads(z, case.heads)[:, :, HEAD], logits]

        return run

    def z_all(self, case: Case) -> Run:
        def run() -> list[torch.Tensor]:
            *all_z, logits = self._merged_z(case, range(case.layers))
            return [*(split_heads(z, case.heads) for z in all_z), logits]

        return run

    def pattern(self, case: Case) -> Run:
        module = self.eager_module
        attention = module.transformer.h[case.middle].attn

        def run() -> list[torch.Tensor]:
            values: list[torch.Tensor] = []
            with hooked((attention, lambda _module, _args, output: values.append(output[1]))):
                logits = module(case.ids).logits
            return [*values, logits]

        return run

    def _residuals(self, case: Case, layers) -> list[torch.Tensor]:
        module = self.module
        values: list[torch.Tensor] = []

        def keep(_module, _args, output):
            values.append(output)

        with hooked(*((module.transformer.h[layer], keep) for layer in layers)):
            logits = module(case.ids).logits
        return [*values, logits]

    def _merged_z(self, case: Case, layers) -> list[torch.Tensor]:
        module = self.module
        values: list[torch.Tensor] = []

        def keep(_module, args, _output):
            values.append(args[0])

        with hooked(*((module.transformer.h[layer].attn.c_proj, keep) for layer in layers)):
            logits = module(case.ids).logits
        return [*values, logits]
