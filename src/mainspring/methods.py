"""Methods: what each must bring, a registry of them, and the trials that all of them must stand.

    @method(organism="recall", control="activation norm", page="find.md#patching")
    def activation_patching(model, batch, ...): ...

A `Trial` says how one method is tried on a model whose answer is known, and `check_method` tries it: equal under one seed, the model
bit for bit as before and without hooks, the same numbers for other batches of the same rows, finite in bfloat16, the same after a
round trip through a folder, shown as a view spec, better than its bar; and neither its null control nor its poison (the same method
with one thing wrong) reaches that bar.

What this does not do: say that a method is right on a model whose answer nobody knows.
"""

import hashlib
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from mainspring.errors import InputError
from mainspring.models.load import wrap

__all__ = ["Finding", "Method", "Trial", "check_method", "method", "methods"]

Function = TypeVar("Function", bound=Callable[..., Any])

TOLERANCE = 1e-4
"""How far the numbers of two batches of the same rows may lie apart, relative to the largest."""

_REGISTRY: dict[str, "Method"] = {}


@dataclass(frozen=True)
class Method:
    """A function that finds or changes something, and what a user must know of it.

    Attributes:
        name: its public name, as in "find.gaze_heads".
        run: the function.
        organism: the organism on which it is shown to be right.
        control: its null control, which knows nothing of the behaviour and must lose.
        page: its place in the documentation, "page.md#section".
        reference: the paper that it comes from; empty for what is common property.
    """

    name: str
    run: Callable[..., Any]
    organism: str
    control: str
    page: str
    reference: str = ""

    @property
    def about(self) -> str:
        """The first line of its docstring."""
        return (self.run.__doc__ or "").strip().partition("\n")[0]


def method(*, organism: str, control: str, page: str, reference: str = "") -> Callable[[Function], Function]:
    """Put a function into the registry, as it is."""

    def register(function: Function) -> Function:
        room = function.__module__.split(".")[1]
        found = Method(f"{room}.{function.__name__}", function, organism, control, page, reference)
        for name, value in (("organism", organism), ("control", control), ("page", page), ("docstring", found.about)):
            if not value:
                raise InputError(f"the method {found.name} has no {name}")
        _REGISTRY[found.name] = found
        return function

    return register


def methods() -> Mapping[str, Method]:
    """Every method that has been imported, by name."""
    return dict(sorted(_REGISTRY.items()))


@dataclass(frozen=True)
class Trial:
    """How a method is tried.

    Attributes:
        open: a model whose answer is known.
        run: the method on it; gives its result.
        control: the result of its null control.
        poison: the same with one thing wrong.
        score: how right a result is, larger is better.
        bar: what the score must reach, and those of control and poison must not.
        numbers: the numbers of a result.
        others: runs that must give the same numbers: other batch sizes, the other padding side, by name.
        tolerance: how far those may lie apart, relative to the largest number.
    """

    open: Callable[[], Any]
    run: Callable[[Any], Any]
    control: Callable[[Any], Any]
    poison: Callable[[Any], Any]
    score: Callable[[Any], float]
    bar: float
    numbers: Callable[[Any], Tensor]
    others: Mapping[str, Callable[[Any], Any]] = field(default_factory=dict)
    tolerance: float = TOLERANCE


@dataclass(frozen=True)
class Finding:
    """One thing that was tried: its name, whether it holds, and what was seen."""

    name: str
    holds: bool
    seen: str = ""

    def __str__(self) -> str:
        return f"{'holds' if self.holds else 'FAILS'}  {self.name}{': ' if self.seen else ''}{self.seen}"


def check_method(method: Method, trial: Trial) -> tuple[Finding, ...]:
    """Try a method; every finding should hold."""
    return tuple(_tried(method, trial))


def _tried(method: Method, trial: Trial) -> Iterator[Finding]:
    model = trial.open()
    before, drawn = _state(model.module), torch.random.get_rng_state()
    first, again = trial.run(model), trial.run(model)
    numbers = trial.numbers(first)
    yield Finding("two runs are equal", _equal(numbers, trial.numbers(again)))
    yield Finding("the model is as before", _state(model.module) == before)
    yield Finding("no random numbers of the caller's are used", bool((torch.random.get_rng_state() == drawn).all()))
    yield Finding("numbers are finite where there are any", bool(numbers.isfinite().any()) and not bool(numbers.isinf().any()))
    for name, run in trial.others.items():
        apart = _apart(numbers, trial.numbers(run(model)))
        yield Finding(f"the same numbers: {name}", apart <= trial.tolerance, f"{apart:.1e} apart")
    yield _low_precision(model, trial, numbers)
    yield _round_trip(first, trial, numbers)
    view = first.view()
    yield Finding("shows itself as a view spec", type(view).__module__ == "mainspring.views.specs", type(view).__name__)
    right, null, wrong = (trial.score(result) for result in (first, trial.control(model), trial.poison(model)))
    yield Finding("reaches its bar", right >= trial.bar, f"{right:.3f} against {trial.bar:g}")
    yield Finding(f"its control does not: {method.control}", null < trial.bar, f"{null:.3f}")
    yield Finding("its poison does not", wrong < trial.bar, f"{wrong:.3f}")


def _low_precision(model: Any, trial: Trial, numbers: Tensor) -> Finding:
    """In bfloat16 the numbers are finite where they were, of the same shape, and order the places much alike."""
    half = wrap(deepcopy(model.module).to(torch.bfloat16), tokenizer=model.tokenizer, processor=model.processor)
    found = trial.numbers(trial.run(half)).double()
    same = found.shape == numbers.shape and bool((found.isfinite() == numbers.isfinite()).all())
    if not same:
        return Finding(
            "runs in bfloat16", False, f"shape {tuple(found.shape)} for {tuple(numbers.shape)}, or other places finite"
        )
    held = numbers.isfinite()
    pair = torch.stack([found[held], numbers[held].double()])
    alike = float(torch.corrcoef(pair)[0, 1]) if pair.shape[1] > 1 else 1.0
    return Finding("runs in bfloat16", alike >= 0.9, f"correlation {alike:.3f}")


def _round_trip(result: Any, trial: Trial, numbers: Tensor) -> Finding:
    with tempfile.TemporaryDirectory() as folder:
        place = result.save(Path(folder) / "result")
        back = type(result).load(place)
        return Finding("saved and loaded, it is the same", _equal(trial.numbers(back), numbers) and str(back) == str(result))


def _equal(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and bool(((a == b) | (a.isnan() & b.isnan())).all())


def _apart(a: Tensor, b: Tensor) -> float:
    """The largest difference, relative to the largest number; infinite where they are not even alike."""
    if a.shape != b.shape or bool((a.isnan() != b.isnan()).any()):
        return float("inf")
    a, b = a[~a.isnan()].double(), b[~b.isnan()].double()
    return float((a - b).abs().max() / a.abs().max().clamp(min=1e-12))


def _state(module: nn.Module) -> str:
    """A digest of all weights and buffers, of hooks, modes and whether gradients are wanted."""
    digest = hashlib.sha256()
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        digest.update(f"{name} {tensor.dtype} {tensor.requires_grad} {tensor.grad is None}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    for name, part in module.named_modules():
        hooks = [_foreign(getattr(part, kind).values()) for kind in ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks")]
        digest.update(f"{name} {part.training} {hooks}".encode())
    return digest.hexdigest()


def _foreign(hooks: Iterable[Any]) -> int:
    """How many hooks there are; those that transformers itself leaves on its vision towers in their first pass do not count."""
    return sum(not str(getattr(hook, "__module__", "")).startswith("transformers.") for hook in hooks)
