"""One tiny forward pass watched from outside: which modules were called, in which order, with which tensors."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mainspring.errors import UnmappedModel

__all__ = ["Call", "SeenLayer", "adds_up", "evaluating", "same", "tiny_inputs", "watch"]


@dataclass(eq=False)
class Call:
    """What one module was given and what it returned: the first tensor of each."""

    path: str
    module: nn.Module
    given: Tensor
    returned: Tensor


@dataclass(frozen=True, eq=False)
class SeenLayer:
    """The calls below one layer, with paths from the layer, in the order in which they begin; the layer itself comes first."""

    calls: list[Call]

    @property
    def pre(self) -> Tensor:
        return self.calls[0].given

    @property
    def post(self) -> Tensor:
        return self.calls[0].returned

    def call(self, path: str) -> Call:
        found = next((c for c in self.calls if c.path == path), None)
        if found is None:
            raise UnmappedModel(f"the module {path} of a layer is not called with a tensor")
        return found

    def after(self, path: str) -> list[Call]:
        """The calls that begin once `path` is over."""
        last = max(i for i, c in enumerate(self.calls) if c.path == path or c.path.startswith(path + "."))
        return self.calls[last + 1 :]


def same(a: Tensor, b: Tensor) -> bool:
    """Equal up to the rounding of their dtype."""
    if a.shape != b.shape:
        return False
    tolerance = _tolerance(a)
    a, b = a.float(), b.float()
    close = (a - b).abs() <= tolerance * (1e-6 + b[b.isfinite()].abs().max())
    return bool((close | (a == b)).all())


def adds_up(before: Tensor, added: Tensor, after: Tensor) -> bool:
    """Whether `after` is `before` plus `added`, judged by the size of what is added, which may be small beside the stream."""
    if before.shape != added.shape or before.shape != after.shape:
        return False
    rounding = 8 * torch.finfo(after.dtype).eps * after.float().abs().max()
    error = (after.float() - before.float() - added.float()).abs().max()
    return bool(error <= _tolerance(added) * added.float().abs().max() + rounding)


def _tolerance(value: Tensor) -> float:
    return 1e-4 if value.dtype in (torch.float32, torch.float64) else 3e-2


def tiny_inputs(module: nn.Module, rows: int = 2, length: int = 6) -> dict[str, Any]:
    """A few tokens, all different, for any model that takes `input_ids`."""
    table = module.get_input_embeddings()  # type: ignore[operator]
    if not isinstance(table, nn.Embedding):
        raise UnmappedModel(f"{type(module).__name__} does not take tokens")
    size = table.num_embeddings
    ids = torch.arange(3, 3 + rows * length) * 7 % size
    return {"input_ids": ids.reshape(rows, length).to(table.weight.device)}


def watch(module: nn.Module, inputs: dict[str, Any]) -> list[Call]:
    """Every call below `module`, with paths from it, in the order in which the calls begin."""
    open_calls: list[tuple[int, Tensor | None]] = []
    found: dict[int, Call] = {}
    handles, begun = [], 0

    def before(_: nn.Module, args: Any, kwargs: Any) -> None:
        nonlocal begun
        given = next((x for x in (*args, *kwargs.values()) if isinstance(x, Tensor)), None)
        # modules may write into their tensors later on
        open_calls.append((begun, None if given is None else given.detach().clone()))
        begun += 1

    def after(path: str) -> Any:
        def hook(called: nn.Module, args: Any, output: Any) -> None:
            order, given = open_calls.pop()
            returned = output[0] if isinstance(output, tuple | list) and output else output
            if given is not None and isinstance(returned, Tensor):
                found[order] = Call(path, called, given, returned.detach().clone())

        return hook

    try:
        for path, child in module.named_modules():
            handles.append(child.register_forward_pre_hook(before, with_kwargs=True))
            handles.append(child.register_forward_hook(after(path)))
        with evaluating(module), torch.no_grad():
            module(**inputs)
    finally:
        for handle in handles:
            handle.remove()
    return [found[i] for i in sorted(found)]


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Without dropout; every module's own mode comes back afterwards."""
    modes = {m: m.training for m in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for child, mode in modes.items():
            child.training = mode
