"""Results of the sweep benchmark as Markdown: who takes how many bare forward passes, and how cost grows."""

from __future__ import annotations

from itertools import groupby

from report import versions_table
from sweep_cases import GROWTH_LENGTH, GROWTH_SIZE, TASKS, VARIANTS

Row = dict
OURS = "mainspring"
BY_HAND = ("plain loop", "hand-batched", "hand-batched whole")
NOISY = 0.2
"""Rounds that lie further apart than this share of the ratio get a tilde."""
AXES = {
    "length": lambda row: row["size"] == GROWTH_SIZE and row["rows"] == 1,
    "layers": lambda row: row["length"] == GROWTH_LENGTH and row["rows"] == 1,
    "rows": lambda row: row["size"] == GROWTH_SIZE and row["length"] == GROWTH_LENGTH,
}
"""What grows, and which rows of the task `growth` lie on it."""


def along(row: Row, axis: str) -> int:
    """Where a row stands on an axis of growth."""
    return int(row["size"].split("-")[1]) if axis == "layers" else row[axis]


def tables(results: dict) -> str:
    """The whole report."""
    rows = [row for row in results["rows"] if "task" in row]
    timed = [row for row in rows if "ratio" in row]
    parts = ["# Sweeps: cost in bare forward passes", *_preamble(results)]
    parts += ["## Same numbers?", _verdict(timed), *_against(timed)]
    kinds = sorted((row for row in rows if row["task"] not in ("savings", "growth")), key=_cell)
    for cell, members in groupby(kinds, key=_cell):
        parts.append(_table(list(members), timed, cell))
    parts += [*_savings(timed), *_growths(timed), *_notes(results)]
    return "\n\n".join(parts) + "\n"


def _preamble(results: dict) -> list[str]:
    machine, settings = results["machine"], results["settings"]
    loads = [row["load"] for row in results["rows"] if "load" in row]
    return [
        "A cell is one edited run, measured by the logit difference at the last position. Numbers are the time of a whole sweep "
        "divided by that of one bare forward pass of the same untouched model on the same input, both taken in turns in one "
        "process, each at the low end of its rounds. ~ marks rounds that lie more than "
        f"{NOISY:.0%} apart. *x ours* is how many times as long as mainspring's sweep it takes.",
        "Loops over cells or over batches of cells take the same time for each; of these some are timed and the rest reckoned "
        "(*timed*). Memory is the peak of the process while it sweeps, and how far that lies above what it held before.",
        f"{machine['cpus']} CPUs, {machine['system']} {machine['architecture']}; about {settings['seconds_per_point']} s per "
        f"point. Load average when a process began: {min(loads, default=0):.1f} to {max(loads, default=0):.1f}.",
        versions_table(results),
    ]


def _verdict(timed: list[Row]) -> str:
    """One sentence if all values equal those of the plain loop; else the ones that do not."""
    checked = [row for row in timed if row["same_numbers"] is not None and row["contender"] != "plain loop"]
    wrong = [row for row in checked if not row["same_numbers"]]
    others = sum(row["same_numbers"] is None for row in timed)
    unchecked = f" {others} had nothing to be compared with." if others else ""
    if not checked:
        return f"Nothing was compared.{unchecked}"
    if not wrong:
        worst = max(row["difference"] for row in checked)
        return f"Yes: {len(checked)} of {len(checked)} equal the plain loop (largest difference {worst:.1e}).{unchecked}"
    lines = [f"- {row['contender']}, {_title(row)}: {row['difference']:.1e}" for row in wrong]
    return "\n".join([f"{len(wrong)} of {len(checked)} differ from the plain loop:{unchecked}", "", *lines])


def _against(timed: list[Row]) -> list[str]:
    """mainspring's layer-by-position sweep against the best of the others."""
    lines = []
    sweeps = sorted((row for row in timed if row["task"] == "resid"), key=_cell)
    for _, members in groupby(sweeps, key=_cell):
        found = list(members)
        ours = next((row for row in found if row["contender"] == OURS), None)
        others = [row for row in found if row["contender"] != OURS and row["same_numbers"] is not False]
        if ours is None or not others:
            continue
        best = [min(some, key=_ratio, default=None) for some in (_libraries(others), others)]
        texts = [f"{row['ratio'] / ours['ratio']:.1f} ({row['contender']})" if row else "-" for row in best]
        head = f"{ours['size']}, {ours['length']} tokens, {_threads(ours)}"
        lines.append(f"| {head} | {ours['ratio']:.1f} of {ours['cells']} | {' | '.join(texts)} |")
    if not lines:
        return []
    head = [
        "| layer x position | mainspring, bare passes of cells | fastest library, x ours | fastest of all, x ours |"
    ]
    return ["## mainspring against the fastest other", "\n".join([*head, "|---|---|---|---|", *lines])]


def _libraries(rows: list[Row]) -> list[Row]:
    return [row for row in rows if row["contender"] not in BY_HAND]


def _ratio(row: Row) -> float:
    return row["ratio"]


def _cell(row: Row) -> tuple:
    return (list(TASKS).index(row["task"]), row["size"], row["length"], row["rows"], row["threads"])


def _threads(row: Row) -> str:
    return f"{row['threads']} thread{'s' if row['threads'] > 1 else ''}"


def _title(row: Row) -> str:
    return f"{TASKS[row['task']]}, {row['size']}, {row['length']} tokens, {_threads(row)}"


def _number(row: Row) -> str:
    noisy = row["ratio_high"] - row["ratio_low"] > NOISY * row["ratio"]
    wrong = " (wrong numbers)" if row["same_numbers"] is False else ""
    return f"{'~' if noisy else ''}{row['ratio']:.1f}{wrong}"


def _times_ours(row: Row, timed: list[Row]) -> str:
    same = (r for r in timed if r["contender"] == OURS and _cell(r) == _cell(row) and not r["variant"])
    ours = next(same, None)
    return f"{row['ratio'] / ours['ratio']:.2f}" if ours else "-"


def _table(rows: list[Row], timed: list[Row], cell: tuple) -> str:
    bare = [row["bare_ms"] for row in rows if "bare_ms" in row]
    lines = [f"## {_title(rows[0])}", ""]
    if bare:
        lines += [f"Bare: {min(bare):.2f} to {max(bare):.2f} ms.", ""]
    lines += [
        "| contender | bare passes | x ours | timed | above, MiB | peak, MiB |  |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        if "ratio" not in row:
            lines.append(f"| {row['contender']} | {'failed' if 'error' in row else '-'} | | | | | |")
            continue
        share = f"{row['timed_cells']} of {row['cells']}"
        memory = f"{row['above_mib']:.0f} | {row['peak_mib']:.0f}"
        lines.append(
            f"| {row['contender']} | {_number(row)} | {_times_ours(row, timed)} | {share} | {memory} | {row['note']} |"
        )
    return "\n".join(lines)


def _savings(timed: list[Row]) -> list[str]:
    rows = sorted((row for row in timed if row["task"] == "savings"), key=_cell)
    parts = []
    for _, members in groupby(rows, key=_cell):
        found = {row["variant"]: row for row in members}
        first, nothing = next(iter(found.values())), found.get("none")
        lines = [
            f"## What each saving is worth: {first['size']}, {first['length']} tokens, {_threads(first)}",
            "",
        ]
        lines += ["| | bare passes | times less | above, MiB |", "|---|---|---|---|"]
        for name, title in VARIANTS.items():
            if row := found.get(name):
                less = f"{nothing['ratio'] / row['ratio']:.2f}" if nothing else "-"
                lines.append(f"| {title} | {_number(row)} | {less} | {row['above_mib']:.0f} |")
        parts.append("\n".join(lines))
    return parts


def _growths(timed: list[Row]) -> list[str]:
    """One table for each axis: milliseconds, for bare passes also grow."""
    rows, parts = [row for row in timed if row["task"] == "growth"], []
    for axis, lies_on in AXES.items():
        found = [row for row in rows if lies_on(row)]
        values = sorted({along(row, axis) for row in found})
        if len(values) < 2:
            continue
        lines = [f"## How cost grows with {axis}: milliseconds of a sweep ({_threads(found[0])})", ""]
        lines += [f"| contender | {' | '.join(map(str, values))} |", "|---" * (len(values) + 1) + "|"]
        for name in dict.fromkeys(row["contender"] for row in found):
            own = {along(row, axis): f"{row['ms']:.0f}" for row in found if row["contender"] == name}
            lines.append(f"| {name} | {' | '.join(own.get(value, '-') for value in values)} |")
        parts.append("\n".join(lines))
    return parts


def _notes(results: dict) -> list[str]:
    """What was done in a special way, and what was not measured and why, each said once."""
    rows = results["rows"]
    remarks = {
        f"- {name}, {TASKS[task]}: {remark}"
        for name, found in results["remarks"].items()
        for task, remark in found.items()
    }
    reasons: dict[str, dict[str, None]] = {}
    for row in rows:
        if "reason" in row and row["task"] != "growth":
            reasons.setdefault(f"{row['contender']}: {row['reason']}", {})[TASKS[row["task"]]] = None
    cannot = {f"- {reason} ({'; '.join(tasks)})" for reason, tasks in reasons.items()}
    failed = {f"- {row['contender']}, {_title(row)}: {row['error']}" for row in rows if "error" in row}
    crashed = {
        f"- {row['contender']}, {row['size']}, {_threads(row)}: {row['crash']}"
        for row in rows
        if "crash" in row
    }
    sections = {
        "## How it was done": remarks,
        "## No recipe": cannot,
        "## Failed": failed,
        "## Did not run": crashed,
    }
    return [f"{title}\n\n" + "\n".join(sorted(lines)) for title, lines in sections.items() if lines]
