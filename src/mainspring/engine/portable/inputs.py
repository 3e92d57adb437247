"""The inputs and spans of a request: frozen when it is made, written as JSON and named tensors."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from mainspring.engine.portable import schema
from mainspring.engine.portable.reading import check_name
from mainspring.errors import Malformed, NotPortable

__all__ = ["frozen_inputs", "frozen_spans", "read_inputs", "read_spans", "same", "write_inputs"]

_PLAIN = bool | int | float | str | None


def frozen_inputs(inputs: Any) -> Any:
    """Inputs as they are given to a model, with lists as tuples. What cannot travel (images, objects) is refused."""
    if inputs is None or isinstance(inputs, str | Tensor):
        return inputs
    if isinstance(inputs, Mapping):
        if "role" in inputs:
            return (dict(inputs),)
        for name, value in inputs.items():
            if not isinstance(value, Tensor) and (isinstance(value, str) or not isinstance(value, _PLAIN)):
                raise NotPortable(f"the argument {name!r} is {type(value).__name__}; tensors, numbers and None travel")
        return dict(inputs)
    if not isinstance(inputs, Sequence):
        raise NotPortable(f"inputs are text, tokens, messages or named tensors, not {type(inputs).__name__}")
    if inputs and all(isinstance(x, Tensor) for x in inputs):
        return tuple(tuple(x.reshape(-1).tolist()) for x in inputs)
    if all(isinstance(x, str | int | Mapping) and not isinstance(x, bool) for x in inputs):
        return tuple(dict(x) if isinstance(x, Mapping) else x for x in inputs)
    if all(isinstance(x, Sequence) and not isinstance(x, str) for x in inputs):
        return tuple(tuple(dict(y) if isinstance(y, Mapping) else y for y in x) for x in inputs)
    raise NotPortable("a batch is a list of texts, of token lists or of conversations, not a mixture")


def frozen_spans(spans: Mapping[str, Any] | None) -> dict[str, Any]:
    """Spans by name with pairs as tuples: a piece of text, a (start, stop) pair, or one of these per row."""

    def one(x: Any) -> Any:
        return x if isinstance(x, str) else tuple(one(y) if isinstance(y, list | tuple | str) else y for y in x)

    return {name: one(given) for name, given in (spans or {}).items()}


def write_inputs(inputs: Any, tensors: dict[str, Tensor]) -> dict[str, Any] | None:
    """The wire form of frozen inputs; tensors join `tensors`."""

    def hold(tensor: Tensor) -> dict[str, str]:
        name = f"t{len(tensors)}"
        tensors[name] = tensor.detach().cpu().contiguous()
        return {"tensor": name}

    if inputs is None:
        return None
    if isinstance(inputs, str):
        return {"text": inputs}
    if isinstance(inputs, Tensor):
        return hold(inputs)
    if isinstance(inputs, dict):
        return {"named": {k: hold(v) if isinstance(v, Tensor) else v for k, v in inputs.items()}}
    first = inputs[0] if inputs else ""
    if isinstance(first, str):
        return {"texts": list(inputs)}
    if isinstance(first, int):
        return {"tokens": list(inputs)}
    if isinstance(first, dict):
        return {"messages": list(inputs)}
    if first and isinstance(first[0], dict):
        return {"conversations": [list(c) for c in inputs]}
    return {"batch": [list(row) for row in inputs]}


def read_inputs(given: Any, tensors: Mapping[str, Tensor]) -> Any:
    """Inputs from outside."""

    def named(ref: schema.TensorRef) -> Tensor:
        if ref.tensor not in tensors:
            raise Malformed(f"the inputs use the tensor {ref.tensor}, which the document does not declare")
        return tensors[ref.tensor]

    match given:
        case None:
            return None
        case schema.TextInputs():
            return given.text
        case schema.TensorRef():
            return named(given)
        case schema.NamedInputs():
            return {k: named(v) if isinstance(v, schema.TensorRef) else v for k, v in given.named.items()}
        case schema.TextsInputs():
            return tuple(given.texts)
        case schema.TokensInputs():
            return tuple(given.tokens)
        case schema.BatchInputs():
            return tuple(tuple(row) for row in given.batch)
        case schema.ChatInputs():
            return tuple(m.model_dump() for m in given.messages)
        case _:
            return tuple(tuple(m.model_dump() for m in c) for c in given.conversations)


def read_spans(given: Mapping[str, Any]) -> dict[str, Any]:
    """Spans from outside."""
    return frozen_spans({check_name(name, "a span"): value for name, value in given.items()})


def same(a: Any, b: Any) -> bool:
    """Equal, tensors by value and dtype."""
    if isinstance(a, Tensor) or isinstance(b, Tensor):
        return (
            isinstance(a, Tensor)
            and isinstance(b, Tensor)
            and a.dtype == b.dtype
            and a.shape == b.shape
            and bool((a == b.to(a.device)).all())
        )
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, tuple) and isinstance(b, tuple):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return type(a) is type(b) and a == b
