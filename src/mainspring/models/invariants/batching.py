"""Invariants about batches and generation: padding changes nothing, and greedy decoding gives the model's own tokens."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from mainspring.models.invariants.bench import Bench, answer
from mainspring.models.invariants.equations import worst
from mainspring.models.report import Row
from mainspring.sites import Site
from mainspring.trace import Trace

__all__ = ["generation", "padding"]

PADDING = "batched equals alone"
GENERATE = "generation equals the model's own"


def padding(bench: Bench, sides: Mapping[str, tuple[Mapping[str, Any], Sequence[Mapping[str, Any]]]]) -> Iterator[Row]:
    """`sides` gives for each padding side a batch, and the same rows alone."""
    stacks = [s for s in bench.model.atlas.towers if s != "vision"]
    last = [Site("resid_post", bench.model.atlas.depth(s) - 1, s) for s in stacks]
    first = [Site("attn.z", 0, s) for s in stacks]
    reads = [s for s in (*last, *first) if s in bench.places]
    for side, (batch, alone) in sides.items():
        name = f"{PADDING}, padded on the {side}"
        together = bench.model.run(dict(batch), read=reads, until="end")
        singles = [bench.model.run(dict(row), read=reads, until="end") for row in alone]
        errors = [
            worst(together.row(i)[site], single[site])
            for i, single in enumerate(singles)
            for site in reads
            if site in single.read.values
        ]
        error = max(errors, default=0.0)
        if error <= bench.tol:
            yield Row(name, "", "ok", error)
            continue
        own, same = _bare_padding(bench, batch, alone, together)
        if same and own > bench.tol:
            note = f"the bare model itself is not exact there: its output is off by {own:.1e}"
            yield Row(name, "", "not applicable", error, note)
        else:
            yield Row(name, "", "failed", error, "padding changes what is read")


def _bare_padding(
    bench: Bench, batch: Mapping[str, Any], alone: Sequence[Mapping[str, Any]], together: Trace
) -> tuple[float, bool]:
    """How far the bare module's own output is from exact at best, and whether the run gave that very output."""
    module, rows = bench.model.module, together.read.rows.get("")
    mask = batch.get("attention_mask")
    options = [batch]
    if "position_ids" in bench.model._names and mask is not None:
        options.append({**batch, "position_ids": (mask.cumsum(1) - 1).clamp(min=0)})
    with torch.no_grad():
        singles = [_hidden(module(**row)) for row in alone]
        wholes = [_hidden(module(**option)) for option in options]
    errors, same = [], False
    for whole in wholes:
        if rows is None or whole is None or whole.shape[1] != rows.width:
            return 0.0, False
        columns = [slice(a, a + n) for a, n in zip(rows.offsets, rows.lengths, strict=True)]
        errors.append(
            max(worst(whole[i, c], s[0]) for i, (c, s) in enumerate(zip(columns, singles, strict=True)) if s is not None)
        )
        real = rows.mask().to(whole.device)
        same |= worst(answer(together)[real], whole[real]) <= bench.tol
    return min(errors), same


def _hidden(output: Any) -> Tensor | None:
    found = next(
        (getattr(output, n) for n in ("logits", "last_hidden_state") if isinstance(getattr(output, n, None), Tensor)), None
    )
    return found if found is not None and found.ndim == 3 else None


def generation(bench: Bench, prompt: Tensor, new: int = 5) -> Iterator[Row]:
    """Greedy, from one prompt of tokens."""
    module = bench.model.module
    if not hasattr(bench.model, "generate") or not getattr(module, "can_generate", lambda: False)():
        yield Row(GENERATE, "", "not applicable", None, "this model does not generate")
        return
    with torch.no_grad():
        own = module.generate(prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=new, do_sample=False)
    ours = bench.model.generate(prompt, max_new_tokens=new).tokens
    equal = ours.shape == own.shape and bool(torch.equal(ours, own))
    yield Row(GENERATE, "", "ok" if equal else "failed", None, "" if equal else f"{own[0].tolist()} became {ours[0].tolist()}")
