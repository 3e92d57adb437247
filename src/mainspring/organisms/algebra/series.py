"""When what was learned: the diagnostic sequences, measured at steps of a training that lie as far apart as their logarithms."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mainspring.organisms.checkpoint import write_json
from mainspring.tasks.algebra import FIRST, SYMBOLS, Sequences
from mainspring.tasks.algebra_rules import RULES, diagnostic

__all__ = ["FACTS", "closed", "crossings", "moments", "right", "watch"]

FACTS = 16
"""Of a diagnostic sequence."""
SERIES_SEED = 60


def moments(steps: int, count: int = 20, first: int = 20) -> list[int]:
    """`count` steps from `first` to the last, evenly spaced in their logarithm."""
    return sorted({round(first * (steps / first) ** (k / (count - 1))) for k in range(count)})


def right(logits: Tensor, given: Sequences) -> float:
    """The share of rows whose last answer is the likeliest of all tokens; logits [row, vocabulary]."""
    return float((logits.argmax(-1).cpu() == FIRST + given.facts[:, -1, 2]).float().mean())


def closed(logits: Tensor, given: Sequences) -> float:
    """The mean probability of the symbols of the group that is asked about."""
    inside = torch.zeros(len(given), len(SYMBOLS))
    for row in range(len(given)):
        x = int(given.facts[row, -1, 0])
        inside[row, [y for a, y in given.products(row) if a == x]] = 1
    return float((logits.softmax(-1).cpu()[:, FIRST:] * inside).sum(1).mean())


def watch(model: Any, steps: int, file: Path, rows: int = 128) -> Callable[[int, nn.Module], None]:
    """An `on_step` that measures the model at `moments` and keeps what it found in `file`; a file found there is gone on with."""
    asked = {rule: diagnostic(rule, rows, FACTS, torch.Generator().manual_seed(SERIES_SEED + k)) for k, rule in enumerate(RULES)}
    at = set(moments(steps))

    def on_step(done: int, _module: nn.Module) -> None:
        if done not in at:
            return
        found = [row for row in json.loads(file.read_text()) if row["step"] < done] if file.is_file() else []
        row: dict[str, float] = {"step": done}
        with torch.no_grad():
            for rule, given in asked.items():
                ids = given.ids[:, :-1].to(next(model.parameters()).device)
                logits = model(input_ids=ids, use_cache=False, logits_to_keep=1).logits[:, -1]
                row[rule] = right(logits, given)
                if rule == "cancel":
                    row["closure"] = closed(logits, given)
        write_json(file, [*found, row])

    return on_step


def crossings(series: list[dict[str, float]], bar: float = 0.5) -> dict[str, int | None]:
    """The first step at which each figure has reached a bar; None where it never does."""
    names = [name for name in series[0] if name != "step"]
    return {name: next((int(row["step"]) for row in series if row[name] >= bar), None) for name in names}
