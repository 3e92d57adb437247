"""Tensors that a module makes inside its own `forward`, without a submodule: caught at the torch function it calls.

Some models compute attention themselves, without transformers' registry, and no hook sees their queries, scores or pattern.
While a run wants one, a torch function mode stands around the forward pass. It acts on this thread only, and only in calls that
a wanted module makes between its entry and its exit; the module's code, kernels and numbers stay its own.

What can be caught, by name:

======== =====================================================================================
q, k     the operands of the module's first batched product; k with its last two axes exchanged
product  the result of that product
scores   what the module's softmax is given
pattern  what its softmax returns
v        the second operand of the module's second batched product
split    what the module's `torch.split` is given
======== =====================================================================================

A fused kernel (`scaled_dot_product_attention`) gets edited q, k and v; where scores or a pattern are wanted it is written out.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

__all__ = ["Inside", "Visits"]

Visits = Mapping[str, Sequence[Any]]
"""By name of what is caught, the points of the run that it passes in turn."""

_PRODUCTS = {torch.matmul, torch.bmm, torch.baddbmm, Tensor.matmul, Tensor.bmm, Tensor.baddbmm, Tensor.__matmul__}
_SOFTMAX = {torch.softmax, Tensor.softmax, nn.functional.softmax}


@dataclass
class _Call:
    """One module that is running: what is wanted inside it, and how many products it has made."""

    module: nn.Module
    visits: Visits
    products: int = field(default=0)


class Inside(TorchFunctionMode):
    """The mode of one forward pass.

    `visit(point, tensor)` reads and edits; `awake` says whether the run it belongs to is the one that this thread runs just now.
    """

    def __init__(
        self, wanted: Mapping[nn.Module, Visits], visit: Callable[[Any, Tensor], Tensor], awake: Callable[[], bool]
    ) -> None:
        super().__init__()
        self.wanted, self.visit, self.awake = wanted, visit, awake
        self.running: list[_Call] = []

    def hooks(self) -> list[Any]:
        """Put hooks on the wanted modules that tell when they begin and end; returns their handles."""
        handles: list[Any] = []
        for module, visits in self.wanted.items():
            handles.append(module.register_forward_pre_hook(self._enter(visits)))
            # last in line, and also when the module raises
            handles.append(module.register_forward_hook(self._leave, always_call=True))
        return handles

    def _enter(self, visits: Visits) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any) -> None:
            if self.awake():
                self.running.append(_Call(module, visits))

        return hook

    def _leave(self, module: nn.Module, args: Any, output: Any) -> None:
        if self.awake() and self.running and self.running[-1].module is module:
            self.running.pop()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if not self.running or not self.awake():
            return func(*args, **kwargs)
        call = self.running[-1]
        if func in _SOFTMAX:
            return self._softmax(call, func, args, kwargs)
        if func in _PRODUCTS:
            return self._product(call, func, list(args), dict(kwargs))
        if func is nn.functional.scaled_dot_product_attention:
            return self._fused(call, func, list(args), dict(kwargs))
        if func is torch.split and "split" in call.visits:
            return func(self._through(call, "split", args[0]), *args[1:], **kwargs)
        return func(*args, **kwargs)

    def _softmax(self, call: _Call, func: Any, args: Any, kwargs: Any) -> Tensor:
        out = func(self._through(call, "scores", args[0]), *args[1:], **kwargs)
        if "scores" in call.visits:
            out = out.nan_to_num(0.0)  # a query that an edit allows to look at nothing has an all-zero pattern
        return self._through(call, "pattern", out)

    def _product(self, call: _Call, func: Any, args: list[Any], kwargs: dict[str, Any]) -> Tensor:
        # operands of a.baddbmm(b, c) stand one place further on, and may be named
        first = 1 if func.__name__ == "baddbmm" else 0
        named = ("batch1", "batch2") if first else ("input", "other")
        values = [_get(args, kwargs, first + i, named[i]) for i in (0, 1)]
        if values[1].ndim < 3:
            return func(*args, **kwargs)  # a linear map, written as a product
        call.products += 1
        if call.products == 1:
            for i, name in ((0, "q"), (1, "k")):
                _put(args, kwargs, first + i, named[i], self._through(call, name, values[i]))
            return self._through(call, "product", func(*args, **kwargs))
        if call.products == 2:
            _put(args, kwargs, first + 1, named[1], self._through(call, "v", values[1]))
        return func(*args, **kwargs)

    def _fused(self, call: _Call, func: Any, args: list[Any], kwargs: dict[str, Any]) -> Tensor:
        query, key, value = (_get(args, kwargs, i, name) for i, name in enumerate(("query", "key", "value")))
        query, value = self._through(call, "q", query), self._through(call, "v", value)
        if "k" in call.visits:
            key = self._through(call, "k", key.transpose(-1, -2)).transpose(-1, -2)
        for i, (name, x) in enumerate((("query", query), ("key", key), ("value", value))):
            _put(args, kwargs, i, name, x)
        if "scores" not in call.visits and "pattern" not in call.visits:
            return func(*args, **kwargs)
        from mainspring.engine.attention import explicit_attention  # which imports the flow, which imports this file

        options = {
            "is_causal": bool(_get(args, kwargs, 5, "is_causal", False)),
            "scaling": _get(args, kwargs, 6, "scale", None),
            "dropout": _get(args, kwargs, 4, "dropout_p", 0.0),
        }
        mask = _get(args, kwargs, 3, "attn_mask", None)
        visit = {name: lambda x, name=name: self._through(call, name, x) for name in ("scores", "pattern")}
        out, _ = explicit_attention(call.module, query, key, value, mask, options, visit["scores"], visit["pattern"])
        return out.transpose(1, 2)

    def _through(self, call: _Call, name: str, value: Tensor) -> Tensor:
        for point in call.visits.get(name, ()):
            value = self.visit(point, value)
        return value


def _get(args: list[Any], kwargs: dict[str, Any], index: int, name: str, *default: Any) -> Any:
    if index < len(args):
        return args[index]
    return kwargs.get(name, *default) if default else kwargs[name]


def _put(args: list[Any], kwargs: dict[str, Any], index: int, name: str, value: Any) -> None:
    if index < len(args):
        args[index] = value
    else:
        kwargs[name] = value
