"""Tracing a function on fake tensors, which have shapes and no numbers, with symbols for the sizes that vary."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch

from mainspring.engine.portable.allowed import ALLOWED
from mainspring.errors import NotPortable

__all__ = ["HINT", "name_of", "trace"]

HINT = "; keep it in code (run it locally), or write it with torch operations on the whole tensor"
VALUES = (
    "it looks at the numbers (an if on values, .item(), nonzero(), a boolean index) to decide what to do next. "
    "Say it with torch.where, masks or topk"
)


def name_of(op: Any) -> str:
    """The name of an operation as the allow-list has it."""
    return f"{op.namespace}.{op._schema.name.split('::')[1]}.{op._overloadname}"


@cache
def _decompositions() -> dict[Any, Any]:
    from torch._decomp import core_aten_decompositions

    def known(op: Any) -> bool:
        return isinstance(op, torch._ops.OpOverload) and name_of(op) in ALLOWED

    return {op: how for op, how in core_aten_decompositions().items() if not known(op)}


def trace(
    fn: Callable[..., Any], shape: tuple[str | int, ...], dtype: torch.dtype, device: torch.device, name: str
) -> tuple[torch.fx.GraphModule, dict[str, str], dict[str, int]]:
    """The functional graph of `fn`, the symbols that it ties together, and the least size of each symbol."""
    from torch._dispatch.python import enable_python_dispatcher
    from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException, FakeTensorMode
    from torch._subclasses.functional_tensor import FunctionalTensorMode, dispatch_functionalize
    from torch.fx.experimental.proxy_tensor import make_fx
    from torch.fx.experimental.symbolic_shapes import DimDynamic, GuardOnDataDependentSymNode, ShapeEnv, StatelessSymbolicContext

    symbols = list(dict.fromkeys(n for n in shape if isinstance(n, str)))
    hints = {n: 7 + 4 * i for i, n in enumerate(symbols)}
    env = ShapeEnv(allow_scalar_outputs=False, duck_shape=True)
    mode = FakeTensorMode(shape_env=env, allow_non_fake_inputs=True)
    dynamic = [DimDynamic.DUCK if isinstance(n, str) else DimDynamic.STATIC for n in shape]
    example = torch.empty([hints[n] if isinstance(n, str) else n for n in shape], dtype=dtype, device=device)
    try:
        with _quiet(), torch.no_grad(), mode, enable_python_dispatcher():
            value = mode.from_tensor(example, symbolic_context=StatelessSymbolicContext(dynamic_sizes=dynamic), source=_source())
            module = make_fx(
                dispatch_functionalize(lambda v: fn(v.clone()), FunctionalTensorMode()),
                tracing_mode="real",
                decomposition_table=_decompositions(),
                _allow_non_fake_inputs=True,
            )(value)
    except (GuardOnDataDependentSymNode, DataDependentOutputException, DynamicOutputShapeException):
        raise NotPortable(f"{name} cannot travel: {VALUES}") from None
    except NotPortable:
        raise
    except Exception as error:  # a trace may fail in any way that the function can
        first = (str(error).splitlines() or [""])[0]
        raise NotPortable(f"{name} cannot travel: tracing it failed with {type(error).__name__}: {first[:300]}{HINT}") from None
    sizes = {n: value.shape[shape.index(n)] for n in symbols}
    return module, *_conditions(env, sizes, name)


def _source() -> Any:
    from torch._dynamo.source import ConstantSource

    return ConstantSource("value")


def _conditions(env: Any, sizes: dict[str, Any], name: str) -> tuple[dict[str, str], dict[str, int]]:
    """What the trace assumed of the sizes: symbols tied to each other, and the least size of each."""
    ties: dict[str, str] = {}
    least: dict[str, int] = {}
    roots: dict[Any, str] = {}
    for symbol, size in sizes.items():
        now = env.replace(size.node.expr) if isinstance(size, torch.SymInt) else size
        if isinstance(now, int) or now.is_number:
            raise NotPortable(f"{name} cannot travel: it works for {symbol} = {now} only; write it so that any number will do")
        if now in roots:
            ties[symbol] = roots[now]
            continue
        roots[now] = symbol
        low, high = env.var_to_range[now].lower, env.var_to_range[now].upper
        if high.is_number and high < 2**31:
            raise NotPortable(
                f"{name} cannot travel: it does one thing up to {high} {symbol} and another beyond; a graph has one path"
            )
        least[symbol] = int(low)
    if any(str(symbol).startswith(("u", "zuf")) for symbol in env.var_to_range):
        raise NotPortable(f"{name} cannot travel: {VALUES}")
    for guard in env.guards:
        if env._maybe_evaluate_static(guard.expr) is None:
            raise NotPortable(
                f"{name} cannot travel: it takes another path where {guard.expr} does not hold (a size decides what is done)"
            )
    return ties, least


@contextmanager
def _quiet() -> Iterator[None]:
    """Tracing tells of failures in the log as well; the error says it better."""
    logger = logging.getLogger("torch.fx.experimental.symbolic_shapes")
    before, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = before
