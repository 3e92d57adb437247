"""Which programs can be trained into which hosts: every pair, five disguise seeds, held or refused, with the figures.

    python benchmarks/trained_in.py                                    # what is missing of everything; hours
    python benchmarks/trained_in.py --hosts llama --programs recall ioi --seeds 0
    python benchmarks/trained_in.py --twins                            # and a twin per pair that only behaves alike

A row per program, host and seed: the three figures of strict interchange on inputs drawn under another seed than
those trained on, what fails (nothing: held), and the time. Rows are written one by one to results/trained_in.json, with
a table in results/trained_in.md; rows that are there are not measured again, unless `--again`.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

from mainspring.organisms import Planted
from mainspring.organisms.catalogue import PROGRAMS
from mainspring.organisms.trained_in import TRAINED_HOSTS, PlantRefused, Weights, train_in, tune

RESULTS = Path(__file__).parent / "results"
NAMES = tuple(name for name in PROGRAMS if name != "pair-diff-base")  # which is two-hop
BAR = 0.98


def measure(program: str, host: str, seed: int, twin: bool) -> dict[str, Any]:
    """Train one organism, or its twin that only behaves alike."""
    recipe = PROGRAMS[program]
    row: dict[str, Any] = {"program": program, "host": host, "seed": seed, "twin": twin}
    start, spent = time.perf_counter(), time.process_time()
    try:
        # Backups are heads: where there are none, the program is trained in without them.
        disguise = recipe.disguise if TRAINED_HOSTS[host].heads else replace(recipe.disguise, backups=())
        first = recipe.twin_of or recipe.program
        planted = train_in(first(), host, disguise, seed, Weights.behaviour() if twin else None)
        if recipe.twin_of:
            planted = tune(planted, recipe.program())
    except PlantRefused as refusal:
        return row | {"failures": [str(refusal)]}
    times = {
        "seconds": round(time.process_time() - spent, 1),
        "wall_seconds": round(time.perf_counter() - start, 1),
    }
    return row | figures(planted) | times


def figures(planted: Planted) -> dict[str, Any]:
    """What the check measured, and how large the model is."""
    checks = planted.truth.checks
    assert checks is not None
    lowest = min(checks.interchange, key=lambda name: checks.interchange[name])
    return {
        "accuracy": checks.accuracy,
        "resampled": checks.resampled,
        "interchange": checks.interchange,
        "lowest": [lowest, checks.interchange[lowest]],
        "repaired": checks.repaired,
        "unrepaired": checks.unrepaired,
        "failures": list(checks.failures(BAR)),
        "layers": planted.truth.layers,
        "width": planted.module.config.hidden_size,
        "parameters": sum(parameter.numel() for parameter in planted.module.parameters()),
    }


def table(rows: Iterable[dict[str, Any]]) -> str:
    """The rows as Markdown: pairs first, then every training, then the twins."""
    rows = sorted(
        rows,
        key=lambda row: (list(TRAINED_HOSTS).index(row["host"]), NAMES.index(row["program"]), row["seed"]),
    )
    real, twins = [row for row in rows if not row["twin"]], [row for row in rows if row["twin"]]
    pairs = dict.fromkeys((row["program"], row["host"]) for row in real)
    text = [
        "# Programs trained into hosts",
        "",
        f"Held: accuracy, accuracy with everything else resampled, and interchange of every variable are at least {BAR} on 200",
        "inputs drawn under another seed than those trained on, every node moves the logits and every edge its target.",
        "The base of pair-diff is two-hop; pair-diff-tuned is trained on from it.",
        "",
        "| program | host | held, of seeds | lowest figure of a seed that held | lowest of the others | CPU seconds |",
        "|---|---|---|---|---|---|",
    ]
    for program, host in pairs:
        own = [row for row in real if (row["program"], row["host"]) == (program, host)]
        held = [row for row in own if not row["failures"]]
        seconds = sorted(row.get("seconds", 0.0) for row in own)[len(own) // 2]
        worst = [_low(group) for group in (held, [row for row in own if row["failures"]])]
        text.append(
            f"| {program} | {host} | {len(held)} of {len(own)} | {worst[0]} | {worst[1]} | {seconds:.0f} |"
        )
    text += [
        "",
        "## Every training",
        "",
        "| program | host | seed | accuracy | resampled | lowest interchange | held |",
    ]
    text += ["|---|---|---|---|---|---|---|", *(_line(row) for row in real)]
    if twins:
        text += [
            "",
            "## Twins that only behave alike",
            "",
            "| program | host | seed | accuracy | resampled | lowest interchange | held |",
        ]
        text += ["|---|---|---|---|---|---|---|", *(_line(row) for row in twins)]
    return "\n".join(text) + "\n"


def _low(rows: list[dict[str, Any]]) -> str:
    found = [min(row["accuracy"], row["resampled"], row["lowest"][1]) for row in rows if "accuracy" in row]
    return f"{min(found):.3f}" if found else ""


def _line(row: dict[str, Any]) -> str:
    names = f"| {row['program']} | {row['host']} | {row['seed']} |"
    if "accuracy" not in row:
        return f"{names} | | | refused: {row['failures'][0]} |"
    name, value = row["lowest"]
    verdict = "yes" if not row["failures"] else "no: " + "; ".join(row["failures"][:3])
    return f"{names} {row['accuracy']:.3f} | {row['resampled']:.3f} | {value:.3f} ({name}) | {verdict} |"


def main() -> None:
    import torch

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--hosts", nargs="+", choices=TRAINED_HOSTS, default=list(TRAINED_HOSTS))
    parser.add_argument("--programs", nargs="+", choices=NAMES, default=list(NAMES))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument(
        "--twins", action="store_true", help="also a twin that only behaves alike, for the first seed"
    )
    parser.add_argument("--again", action="store_true", help="measure rows again that are there")
    given = parser.parse_args()
    torch.set_num_threads(1)
    file = RESULTS / "trained_in.json"
    rows: list[dict[str, Any]] = json.loads(file.read_text()) if file.exists() else []
    alone = [name for name in given.programs if PROGRAMS[name].twin_of is None]
    wanted = [(p, h, s, False) for s in given.seeds for h in given.hosts for p in given.programs]
    wanted += [(p, h, given.seeds[0], True) for h in given.hosts for p in alone] if given.twins else []
    for program, host, seed, twin in wanted:
        same = [
            row
            for row in rows
            if (row["program"], row["host"], row["seed"], row["twin"]) == (program, host, seed, twin)
        ]
        if same and not given.again:
            continue
        row = measure(program, host, seed, twin)
        rows = [*(old for old in rows if old not in same), row]
        file.write_text(json.dumps(rows, indent=1) + "\n")
        file.with_suffix(".md").write_text(table(rows))
        print(_line(row), flush=True)


if __name__ == "__main__":
    main()
