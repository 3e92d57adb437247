"""What happens at a site: an edit is a site and an operation, as data.

Verbs on a site make edits; edits at one site apply in the order given. Values may be numbers or tensors that broadcast over the
narrowed site (trailing axes aligned, as in torch). An edit compares by value, prints as one line and, but for `apply`, is written
to JSON + safetensors by `mainspring.storage`.

========== ==========================================================================================
verb       the value v becomes
========== ==========================================================================================
set        x
add        v + x
scale      c v
ablate     0, a mean, or the value of another row ("zero", "mean", "resample")
patch      the value of a trace, or of another row or position of this run
project_out v minus its components along the given directions
clamp      v limited to [low, high]
mask       blocked: -inf on attention scores (the rest renormalises), 0 on a pattern (the rest keeps its weight)
apply      fn(v)
========== ==========================================================================================
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mainspring.errors import DtypeMismatch, EditError, NotFinite, ShapeMismatch

if TYPE_CHECKING:
    from mainspring.sites import Site
    from mainspring.trace import Trace

__all__ = ["OPERATIONS", "Edit", "EditVerbs", "Edits", "as_edits"]

OPERATIONS = ("set", "add", "scale", "ablate", "patch", "project_out", "clamp", "mask", "apply")


@dataclass(frozen=True, eq=False)
class Edit:
    """One operation at one site. Made by the verbs of `Site`, not by hand."""

    site: "Site"
    op: str
    params: tuple[tuple[str, Any], ...] = ()

    def __post_init__(self) -> None:
        if self.op not in OPERATIONS:
            raise EditError(f"there is no operation {self.op!r}; operations are {', '.join(OPERATIONS)}")
        object.__setattr__(self, "_params", dict(self.params))

    def __getitem__(self, key: str) -> Any:
        """A parameter of the operation, or None where it was not given."""
        return self._params.get(key)  # type: ignore[attr-defined]

    def at(self, site: "Site") -> "Edit":
        """The same operation at another site."""
        return Edit(site, self.op, self.params)

    def __add__(self, other: "Edit | Iterable[Edit]") -> "Edits":
        return Edits((self,)) + other

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Edit):
            return NotImplemented
        mine, theirs = self.params, other.params
        return (
            (self.site, self.op) == (other.site, other.op)
            and [k for k, _ in mine] == [k for k, _ in theirs]
            and all(_same(a, b) for (_, a), (_, b) in zip(mine, theirs, strict=True))
        )

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:  # tensors compare by value but hash by shape, which stays
        return hash((self.site, self.op, tuple((k, _hashable(v)) for k, v in self.params)))

    def __str__(self) -> str:
        return f"{self.site}.{self.op}({', '.join(_show(k, v) for k, v in self.params)})"

    __repr__ = __str__


class Edits(tuple[Edit, ...]):
    """Several edits, applied in order; `a + b` combines edits and groups of edits."""

    def __add__(self, other: "Edit | Iterable[Edit]") -> "Edits":  # type: ignore[override]
        return Edits((*self, other) if isinstance(other, Edit) else (*self, *other))

    def __str__(self) -> str:
        return "\n".join(map(str, self))


def as_edits(edits: "Edit | Iterable[Any] | None") -> Edits:
    """One edit, nested groups of edits or None, as one flat group in order."""
    if edits is None:
        return Edits()
    if isinstance(edits, Edit):
        return Edits((edits,))
    if type(edits) is Edits:
        return edits
    if isinstance(edits, list | tuple):
        if set(map(type, edits)) == {Edit}:
            return Edits(edits)
        return Edits(edit for item in edits for edit in ((item,) if type(item) is Edit else as_edits(item)))
    if isinstance(edits, str | dict | Tensor) or not isinstance(edits, Iterable):
        raise EditError(f"edits are made by the verbs of a site, as in at.embed.scale(2.0); got {type(edits).__name__}")
    return Edits(edit for item in edits for edit in as_edits(item))


class EditVerbs:
    """The verbs of a site. Each returns an `Edit`; nothing runs."""

    def set(self, value: Any) -> Edit:
        """Replace the value."""
        return self._edit("set", value=_values(value, "set"))

    def add(self, value: Any) -> Edit:
        """Add to the value."""
        return self._edit("add", value=_values(value, "add"))

    def scale(self, factor: Any) -> Edit:
        """Multiply the value."""
        return self._edit("scale", value=_values(factor, "scale"))

    def ablate(
        self,
        kind: str = "zero",
        *,
        of: "Trace | None" = None,
        over: Sequence[str] = ("batch", "pos"),
        seed: int = 0,
    ) -> Edit:
        """Remove what the value says: "zero", "mean" or "resample".

        "mean" averages `over` the batch, the token positions or both; padding does not count. "resample" takes the value
        of another row, drawn by `seed`. Both look at the trace `of`, or at this run's own batch when it is not given.
        """
        if kind not in ("zero", "mean", "resample"):
            raise EditError(f'ablate("{kind}"): the kinds are "zero", "mean" and "resample"')
        over = (over,) if isinstance(over, str) else tuple(over)
        if kind == "mean" and (not over or not set(over) <= {"batch", "pos"}):
            raise EditError(f'ablate("mean", over={over}): average over "batch", "pos" or both')
        given: dict[str, Any] = {"kind": kind}
        if kind != "zero":
            given["of"] = of
        if kind == "mean":
            given["over"] = over
        if kind == "resample":
            given["seed"] = int(seed)
        return self._edit("ablate", **given)

    def patch(
        self,
        source: "Trace | Tensor | None" = None,
        *,
        site: "Site | None" = None,
        row: Any = None,
        pos: Any = None,
    ) -> Edit:
        """Put in the value of a trace (or a tensor), of another site, row or position of it.

        Without `source`, the value comes from this run itself, at another `row` or `pos` of the same site. Positions are
        counted in the source's own text.
        """
        if source is None and row is None and pos is None:
            raise EditError(f"{self}.patch() needs a trace, or another row= or pos= of this run to patch from")
        if source is None and site is not None:
            raise EditError(f"{self}.patch(site=...) needs a trace; within one run only row= and pos= can differ")
        if isinstance(source, Tensor):
            if site is not None or row is not None or pos is not None:
                raise EditError(f"{self}.patch(tensor) takes no site=, row= or pos=; index the tensor instead")
            return self.set(source)
        from mainspring.selectors import as_index

        given = {"source": source, "site": site}
        given |= {"row": None if row is None else as_index(row, "row"), "pos": None if pos is None else as_index(pos, "pos")}
        return self._edit("patch", **{k: v for k, v in given.items() if v is not None})

    def project_out(self, directions: Any) -> Edit:
        """Remove the components along one direction [dim], or along the span of several [k, dim]."""
        values = _values(directions, "project_out")
        if not isinstance(values, Tensor) or values.ndim not in (1, 2):
            raise ShapeMismatch("project_out takes one direction [dim] or several [k, dim]")
        if bool((values.norm(dim=-1) == 0).any()):
            raise EditError("project_out was given a zero vector, which is no direction")
        return self._edit("project_out", value=values)

    def clamp(self, low: float | None = None, high: float | None = None) -> Edit:
        """Limit every entry to [low, high]."""
        if low is None and high is None:
            raise EditError("clamp needs low=, high= or both")
        if any(x is not None and math.isnan(x) for x in (low, high)):
            raise NotFinite("clamp was given NaN")
        if low is not None and high is not None and low > high:
            raise EditError(f"clamp(low={low}, high={high}) leaves nothing: low is above high")
        return self._edit("clamp", low=low, high=high)

    def mask(self, where: Any = None) -> Edit:
        """Block attention: all selected entries, or those where the boolean tensor `where` is true.

        On `scores` a blocked entry is -inf, so the softmax shares its weight among the others; on `pattern` it is 0 and the
        others keep their weight. A query whose every key is blocked attends to nothing.
        """
        if getattr(self, "stack", "") == "module" or getattr(self, "name", "").split(".")[-1] not in ("scores", "pattern"):
            raise EditError(f"{self}.mask(): only attention scores and patterns can be masked")
        if where is not None:
            where = torch.as_tensor(where)
            if where.dtype != torch.bool:
                raise DtypeMismatch(f"mask(where=...) takes a boolean tensor that is true where blocked, not {where.dtype}")
        return self._edit("mask", **({} if where is None else {"where": where}))

    def apply(self, fn: Callable[[Tensor], Tensor]) -> Edit:
        """Any function of the value, in ordinary PyTorch; it returns a tensor of the same shape."""
        if not callable(fn):
            raise EditError(f"apply takes a function of one tensor, not {type(fn).__name__}")
        return self._edit("apply", fn=fn)

    def _edit(self, op: str, **params: Any) -> Edit:
        return Edit(self, op, tuple(params.items()))  # type: ignore[arg-type]


def _values(value: Any, verb: str) -> float | Tensor:
    """A finite number or floating tensor."""
    if isinstance(value, bool):
        raise DtypeMismatch(f"{verb}({value}) is not a number")
    if isinstance(value, int | float):
        if not math.isfinite(value):
            raise NotFinite(f"{verb} was given {value}")
        return float(value)
    if not isinstance(value, Tensor):
        try:
            value = torch.as_tensor(value, dtype=torch.get_default_dtype())
        except (TypeError, ValueError, RuntimeError):
            raise EditError(f"{verb} takes a number or a tensor, not {type(value).__name__}") from None
    if not value.is_floating_point():
        raise DtypeMismatch(f"{verb} was given a {value.dtype} tensor; activations are floating point: use .float()")
    if value.numel() == 0:
        raise ShapeMismatch(f"{verb} was given an empty tensor of shape {tuple(value.shape)}")
    # the sum is finite unless an entry is not, or it overflows: one pass settles the common case
    if value.device.type != "meta" and not math.isfinite(float(value.detach().sum())):
        bad = int((~torch.isfinite(value.detach())).sum())
        if bad:
            raise NotFinite(f"{verb} was given {bad} entries that are NaN or infinite out of {value.numel()}")
    return value


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor) or isinstance(b, Tensor):
        if not (isinstance(a, Tensor) and isinstance(b, Tensor)):
            return False
        return a.shape == b.shape and a.dtype == b.dtype and torch.equal(a, b.to(a.device))
    return a is b or bool(a == b)


def _hashable(value: Any) -> Any:
    if isinstance(value, Tensor):
        return tuple(value.shape), value.dtype
    try:
        hash(value)
    except TypeError:
        return type(value).__name__
    return value


def _show(key: str, value: Any) -> str:
    if isinstance(value, Tensor):
        if value.ndim == 0:
            return f"{value.item():.4g}"
        return f"{key}=Tensor[{', '.join(map(str, value.shape))}]"
    if key == "fn":
        return getattr(value, "__name__", type(value).__name__)
    if isinstance(value, float):
        return f"{value:.6g}" if key == "value" else f"{key}={value:.6g}"
    if key == "kind":
        return repr(value)
    return f"{key}={value}"
