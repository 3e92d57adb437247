"""What a library costs: the same tasks on the same GPT-2, as ratios to the model's bare forward pass.

Run ``python benchmarks/overhead.py``; see ``benchmarks/README.md``.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from itertools import product
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from cases import BATCHES, LENGTHS, SIZES  # noqa: E402
from contenders import CONTENDERS  # noqa: E402
from environments import Environments, prepare, without_paths  # noqa: E402
from picture import draw  # noqa: E402
from report import tables  # noqa: E402

QUICK = {"sizes": ["tiny"], "threads": [1], "lengths": "16", "batches": "1", "seconds": 0.15, "name": "quick"}


def main() -> None:
    options = parse()
    environments = prepare(options.contenders)
    results = {
        "machine": machine(),
        "settings": {"seconds_per_task": options.seconds, "quick": options.quick},
        "groups": environments.groups,
        "versions": {},
        "remarks": {},
        "rows": [],
    }
    for size, threads, contender in product(options.sizes, options.threads, options.contenders):
        print(f"{size}, {threads} thread(s): {contender}", flush=True)
        rows = run(contender, size, threads, environments, options, results)
        results["rows"] += [{"contender": contender, "size": size, "threads": threads, **row} for row in rows]
        write(results, options)
    print(f"wrote {options.out}/{options.name}.json, .md and .svg")


def parse() -> argparse.Namespace:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--quick", action="store_true", help="a smoke test: the tiny model, one cell, < 60 s")
    words.add_argument("--contenders", type=commas, default=list(CONTENDERS))
    words.add_argument("--sizes", type=commas, default=list(SIZES))
    words.add_argument("--threads", type=lambda text: [int(part) for part in commas(text)], default=[1, 2])
    words.add_argument("--lengths", default=",".join(map(str, LENGTHS)))
    words.add_argument("--batches", default=",".join(map(str, BATCHES)))
    words.add_argument("--tasks", help="names from cases.TASKS, by commas; default all")
    words.add_argument("--seconds", type=float, default=2.5, help="time for one task in one cell")
    words.add_argument("--name", default="overhead", help="stem of the result files")
    words.add_argument("--out", type=Path, default=HERE / "results")
    if "--quick" in sys.argv:
        words.set_defaults(**QUICK)
    return words.parse_args()


def commas(text: str) -> list[str]:
    """``"a,b"`` as ``["a", "b"]``."""
    return [part.strip() for part in text.split(",") if part.strip()]


def machine() -> dict[str, object]:
    """What numbers depend on, and nothing that names the machine."""
    return {"cpus": os.cpu_count(), "system": platform.system(), "architecture": platform.machine()}


def run(
    contender: str,
    size: str,
    threads: int,
    environments: Environments,
    options: argparse.Namespace,
    results: dict,
) -> list[dict[str, object]]:
    """The rows of one process; its versions and remarks go straight into ``results``.

    A crash gives one row that says so, after the rows that came before it.
    """
    if contender not in environments.pythons:
        return [{"crash": environments.reasons.get(contender, "no environment")}]
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "rows.jsonl"
        failure = _measure(environments.pythons[contender], contender, size, threads, options, out)
        lines = out.read_text().splitlines() if out.exists() else []
    rows = [json.loads(line) for line in lines]
    for row in rows:
        if "versions" in row:
            results["versions"][contender], results["remarks"][contender] = row["versions"], row["remarks"]
        if "error" in row:
            row["error"] = without_paths(row["error"])
    rows = [row for row in rows if "task" in row]
    return [*rows, {"crash": failure}] if failure else rows


def _measure(python: Path, contender: str, size: str, threads: int, options, out: Path) -> str | None:
    """Run ``measure.py`` in the contender's environment; what went wrong, or None."""
    command = [str(python), str(HERE / "measure.py"), "--contender", contender, "--size", size]
    command += ["--threads", str(threads), "--seconds", str(options.seconds), "--out", str(out)]
    command += ["--lengths", options.lengths, "--batches", options.batches]
    command += ["--tasks", options.tasks] if options.tasks else []
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    try:
        outcome = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=7200, check=False
        )
    except subprocess.TimeoutExpired:
        return "took more than two hours"
    if outcome.returncode == 0:
        return None
    last = (outcome.stderr.strip().splitlines() or ["nothing on stderr"])[-1]
    return without_paths(f"exit {outcome.returncode}: {last}")[:200]


def write(results: dict, options: argparse.Namespace) -> None:
    """JSON, tables and picture; after every process, so that an interrupted run leaves what it has."""
    options.out.mkdir(parents=True, exist_ok=True)
    stem = options.out / options.name
    stem.with_suffix(".json").write_text(json.dumps(results, indent=1) + "\n")
    stem.with_suffix(".md").write_text(tables(results))
    stem.with_suffix(".svg").write_text(draw(results))


if __name__ == "__main__":
    main()
