"""A progress bar for long work, drawn on standard error only when it is asked for."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["drawn"]

Report = Callable[[int, int], None]


@contextmanager
def drawn(progress: Report | bool) -> Iterator[Report | None]:
    """The function to report to: the caller's own, a bar, or None."""
    if not progress:
        yield None
        return
    if callable(progress):
        yield progress
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("cells")
        yield lambda done, total: bar.update(task, completed=done, total=total)
