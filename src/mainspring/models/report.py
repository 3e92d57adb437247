"""What `model.check()` gives back: one row for each invariant and layer, with its verdict and its worst error."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from html import escape
from typing import Any, Literal

__all__ = ["Report", "Row", "folded"]

Verdict = Literal["ok", "failed", "refused", "not applicable"]


@dataclass(frozen=True)
class Row:
    """One invariant on one layer ("3", "vision 0"), or on the whole model (""). `error` is relative, at the worst token."""

    invariant: str
    layer: str
    verdict: Verdict
    error: float | None = None
    note: str = ""


@dataclass(frozen=True)
class Report:
    """The proof of a map on one model. `ok` says that nothing failed; what a layer does not have is no failure."""

    model: str
    rows: tuple[Row, ...] = field(default=(), repr=False)

    @property
    def ok(self) -> bool:
        return bool(self.rows) and not self.failed

    @property
    def failed(self) -> tuple[Row, ...]:
        """The rows that disprove the map."""
        return tuple(row for row in self.rows if row.verdict == "failed")

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)

    def of(self, invariant: str) -> tuple[Row, ...]:
        """The rows of one invariant."""
        return tuple(row for row in self.rows if row.invariant == invariant)

    @property
    def invariants(self) -> tuple[str, ...]:
        """Every invariant, in the order of the report."""
        return tuple(dict.fromkeys(row.invariant for row in self.rows))

    def folded(self) -> list[tuple[str, str, str, str, str]]:
        """Rows for display: layers of one invariant with the same verdict and note share a line, with their worst error."""
        groups: dict[tuple[str, str, str], list[Row]] = {}
        for row in self.rows:
            groups.setdefault((row.invariant, row.verdict, row.note), []).append(row)
        lines = []
        for (invariant, verdict, note), rows in groups.items():
            errors = [row.error for row in rows if row.error is not None]
            worst = f"{max(errors):.1e}" if errors else ""
            lines.append((invariant, folded(row.layer for row in rows), verdict, worst, note))
        return lines

    @property
    def headline(self) -> str:
        bad = {row.invariant for row in self.failed}
        proven = {row.invariant for row in self.rows if row.verdict == "ok"} - bad
        words = f"{self.model}: {len(proven)} invariants hold"
        return words + (f", {len(bad)} fail: {'; '.join(i for i in self.invariants if i in bad)}" if bad else "")

    def __rich__(self) -> Any:
        from rich.table import Table
        from rich.text import Text

        table = Table(title=self.headline, title_justify="left")
        for name in ("invariant", "layers", "verdict", "worst error", "note"):
            table.add_column(name, overflow="fold")
        colours = {"ok": "green", "failed": "bold red", "refused": "yellow", "not applicable": "dim"}
        for invariant, layers, verdict, worst, note in self.folded():
            table.add_row(Text(invariant), layers, Text(verdict, style=colours[verdict]), worst, Text(note))
        return table

    def __str__(self) -> str:
        from rich.console import Console

        console = Console(width=140, color_system=None, force_terminal=False)
        with console.capture() as text:
            console.print(self)
        return text.get()

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{name}</th>" for name in ("invariant", "layers", "verdict", "worst error", "note"))
        body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in line) + "</tr>" for line in self.folded())
        return f"<table><caption>{escape(self.headline)}</caption><tr>{head}</tr>{body}</table>"


def folded(layers: Iterable[str]) -> str:
    """Layer names with neighbours joined, by stack: ``0:12``, ``vision 0:4``, ``1, 3``."""
    stacks: dict[str, list[int]] = {}
    for layer in layers:
        stack, _, index = layer.rpartition(" ")
        if index.isdigit():
            stacks.setdefault(stack, []).append(int(index))
        else:
            stacks.setdefault(layer, [])
    shown = []
    for stack, indices in stacks.items():
        runs: list[list[int]] = []
        for i in sorted(set(indices)):
            if runs and runs[-1][1] == i:
                runs[-1][1] = i + 1
            else:
                runs.append([i, i + 1])
        spans = ", ".join(str(a) if b == a + 1 else f"{a}:{b}" for a, b in runs)
        shown.append(f"{stack} {spans}".strip())
    return ", ".join(shown)
