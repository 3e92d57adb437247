"""One contender at one size and thread count, in a process of its own: check the numbers, then time.

Writes one JSON object a line to ``--out``, each as soon as it is known, so that a crash loses little.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import sys
import warnings
from importlib.metadata import PackageNotFoundError, version
from itertools import product
from pathlib import Path

from cases import BATCHES, LENGTHS, SIZES, TASKS

RELATIVE_TOLERANCE = 1e-4
"""Allowed difference from plain hooks, relative to the largest absolute value of the tensor."""


def main() -> None:
    options = parse()
    quieten()
    import torch

    torch.set_num_threads(options.threads)
    torch.set_num_interop_threads(1)
    with options.out.open("w") as lines:

        def say(**fields: object) -> None:
            print(json.dumps(fields), file=lines, flush=True)

        measure(options, say)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--contender", required=True)
    parser.add_argument("--size", choices=list(SIZES), required=True)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--lengths", type=integers, default=LENGTHS)
    parser.add_argument("--batches", type=integers, default=BATCHES)
    parser.add_argument("--tasks", type=lambda text: text.split(","), default=list(TASKS))
    parser.add_argument("--seconds", type=float, default=2.5)
    parser.add_argument("--out", type=Path, required=True)
    return parser.parse_args()


def integers(text: str) -> tuple[int, ...]:
    """``"1,2"`` as ``(1, 2)``."""
    return tuple(int(part) for part in text.split(","))


def quieten() -> None:
    """Libraries talk on import and on loading; the benchmark's output is its own. Nothing is downloaded."""
    warnings.simplefilter("ignore")
    os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_VERBOSITY="error", TOKENIZERS_PARALLELISM="false")


def measure(options: argparse.Namespace, say) -> None:
    """Every cell and task of one contender, through ``say``."""
    from cases import make_case, model_maker
    from contenders import load
    from contenders.plain_hooks import Adapter as PlainHooks
    from timing import Budget

    make_model = model_maker(options.size)
    adapter = load(options.contender)
    say(versions=versions(adapter.packages), remarks=adapter.remarks)
    contender, reference = adapter(make_model), PlainHooks(make_model)
    gc.collect()
    gc.freeze()
    budget = Budget(options.seconds)
    for length, batch in product(options.lengths, options.batches):
        case = make_case(options.size, length, batch)
        for task in options.tasks:
            outcome = measure_task(contender, reference, task, case, budget)
            say(length=length, batch=batch, task=task, **outcome)


def measure_task(contender, reference, task: str, case, budget) -> dict[str, object]:
    """The fields of one row: a time and a verdict on the numbers, or a reason, or an error."""
    from contenders.base import Cannot
    from timing import Work, interleave, summary

    gradients = task == "gradients"
    try:
        run = contender.task(task, case)
        difference = compare(run, reference.task(task, case), gradients=gradients)
        bare = reference.module
        rounds = interleave(Work(lambda: bare(case.ids)), Work(run, gradients), budget)
    except Cannot as reason:
        return {"reason": str(reason)}
    except Exception as error:  # a contender's failure is a result
        return {"error": one_line(error)}
    same = difference <= RELATIVE_TOLERANCE
    return {**summary(rounds), "same_numbers": same, "difference": float(f"{difference:.2g}")}


def compare(run, reference_run, *, gradients: bool) -> float:
    """The largest difference from the reference; infinite where shapes or counts differ."""
    import torch

    with torch.set_grad_enabled(gradients):
        found, expected = run(), reference_run()
    if [x.shape for x in found] != [x.shape for x in expected]:
        return float("inf")
    worst = ((x - y).abs().max() / y.abs().max() for x, y in zip(found, expected, strict=True))
    return max(float(value) for value in worst)


def versions(packages: tuple[str, ...]) -> dict[str, str]:
    """Installed versions of torch, transformers and the contender's own distributions."""
    found = {"python": ".".join(map(str, sys.version_info[:3]))}
    for package in ("torch", "transformers", *packages):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def one_line(error: Exception) -> str:
    """The kind of an exception and the first line of its message, at most 200 characters."""
    text = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {text[0]}"[:200]


if __name__ == "__main__":
    main()
