"""Decoders, mixtures and hybrids of the zoo with our models over them, and forwards with torch's own hooks."""

from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from conformance.zoo import CASES
from mainspring.models.maps import find_module
from models.map_algebra import Bench

NAMES = [n for n, c in CASES.items() if c.kind in ("decoder", "state-space", "hybrid") and not n.startswith("unknown-")]
INSIDE = ["gptj", "gpt-neo", "bloom", "mpt", "falcon-old", "falcon-new", "falcon-alibi"]
"""Families that compute attention in their own modules."""
CHECKS = ["reading_changes_nothing", "heads", "mlp", "residual", "noop", "writing", "stream_is_one", "head_knockout"]


@cache
def bench(name: str) -> Bench:
    torch.set_num_threads(1)
    return Bench(name)


def with_attention(case: Bench) -> list[int]:
    return [i for i in range(case.depth) if case.offers("attn.q", i)]


def value(case: Bench, name: str, layer: int) -> Tensor:
    return case.whole[case.site(name, layer)]


def mixed(case: Bench, layer: int, pattern: Tensor, values: Tensor) -> Tensor:
    """Values weighted by a pattern, every key-value head serving its group of query heads."""
    group = value(case, "attn.z", layer).shape[2] // values.shape[2]
    return torch.einsum("bhqk,bkhd->bqhd", pattern, values.repeat_interleave(group, dim=2))


def plain(module: nn.Module, inputs: dict[str, Any], paths: dict[str, tuple[str, str]]) -> dict[str, Tensor]:
    """A forward with torch's own hooks: by name, what the module at a path was given or returned."""
    seen: dict[str, Tensor] = {}
    handles = []
    for name, (path, end) in paths.items():
        target = find_module(module, path)
        assert target is not None, path

        def before(m: nn.Module, args: Any, kwargs: Any, name: str = name) -> None:
            seen[name] = next(x for x in (*args, *kwargs.values()) if isinstance(x, Tensor)).clone()

        def after(m: nn.Module, args: Any, output: Any, name: str = name) -> None:
            seen[name] = (output[0] if isinstance(output, tuple) else output).clone()

        given = end == "input"
        handles.append(
            target.register_forward_pre_hook(before, with_kwargs=True) if given else target.register_forward_hook(after)
        )
    with torch.no_grad():
        seen["logits"] = module(**inputs).logits
    for handle in handles:
        handle.remove()
    return seen


def replaced(module: nn.Module, inputs: dict[str, Any], path: str, end: str, value: Tensor) -> Tensor:
    """Logits of a forward in which torch's own hook exchanges what a module is given or returns."""
    target = find_module(module, path)
    assert target is not None

    def before(m: nn.Module, args: Any, kwargs: Any) -> Any:
        return (value.reshape(args[0].shape).clone(), *args[1:]), kwargs  # models may write into what they are given

    def after(m: nn.Module, args: Any, output: Any) -> Any:
        return (value.clone(), *output[1:]) if isinstance(output, tuple) else value.reshape(output.shape).clone()

    given = end == "input"
    handle = target.register_forward_pre_hook(before, with_kwargs=True) if given else target.register_forward_hook(after)
    with torch.no_grad():
        logits = module(**inputs).logits
    handle.remove()
    return logits
