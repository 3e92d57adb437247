"""`mainspring organism list | show | train | verify | plant`: the small models whose inside is known."""

import secrets
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from mainspring.organisms.registry import Entry
    from mainspring.organisms.trained import TrainedTruth
    from mainspring.organisms.truth import Truth

__all__ = ["app"]

app = typer.Typer(help="Small models whose inside is known: list, look into, train, verify, plant.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(metavar="NAME", help="as in `list`; also NAME#SEED and NAME@HOST#SEED")]
Place = Annotated[str, typer.Argument(metavar="NAME", help="as for `show`, or a folder")]
Plain = Annotated[str, typer.Argument(metavar="NAME", help="as in `list`")]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps")]
Out = Annotated[str | None, typer.Option(help="the folder to write; without it, the cache")]


@app.command("list")
def list_() -> None:
    """Say which organisms there are, what is inside each, and how well that is known."""
    from rich.table import Table

    from mainspring.organisms.registry import entries

    table = Table("name", "kind", "size", "inside", "verified")
    for found in entries():
        size = f"{found.size / 1e6:.1f} MB" if found.folder else ""
        table.add_row(found.name, found.kind, size, found.about, _verified(found))
    _print(table)


@app.command()
def show(name: Name) -> None:
    """Show an organism's card and its truth."""
    from rich.markdown import Markdown

    from mainspring.organisms.registry import folder_of, read_truth
    from mainspring.organisms.trained import TrainedTruth

    _quiet()
    folder = folder_of(name)
    card = folder / "card.md"
    if card.is_file():
        _print(Markdown(card.read_text()))
    truth = read_truth(folder)
    for table in _trained_tables(truth) if isinstance(truth, TrainedTruth) else _planted_tables(truth):
        _print(table)
    _print(str(folder), style="dim", markup=False)


@app.command()
def train(
    name: Plain,
    device: Device = "cpu",
    seed: Annotated[int, typer.Option(min=0, help="another seed is another organism with the same recipe")] = 0,
    out: Out = None,
) -> None:
    """Make an organism again from its recipe; an interrupted training goes on where it was."""
    from mainspring.commands.progress import training_bar
    from mainspring.organisms.address import Address
    from mainspring.organisms.registry import entry, folder_of, plant_into, trained_folder
    from mainspring.organisms.trained import recipe_of

    _quiet()
    found = entry(name)
    if found.kind == "planted":
        made = plant_into(Path(out), name, "gpt2", seed) if out else folder_of(Address(name, None, seed))
        _print(f"{name} is compiled, not trained; it is in {made}", markup=False)
        return
    recipe = recipe_of(name)
    folder = Path(out) if out else trained_folder(name, seed)
    folder.mkdir(parents=True, exist_ok=True)
    _print(f"{recipe.about}\nabout {recipe.minutes:g} minutes on two cores; writes {folder}", markup=False)
    with training_bar(name) as progress:
        recipe.train(folder, seed, device, progress)
    _print(f"wrote {folder}; measure it with: mainspring organism verify {folder}", markup=False)


@app.command()
def verify(
    name: Place,
    count: Annotated[int | None, typer.Option(min=20, help="on how many inputs (planted organisms; 200)")] = None,
    seed: Annotated[int, typer.Option(min=0, help="of those inputs (planted organisms)")] = 20_000,
    device: Annotated[str | None, typer.Option(help="for trained organisms: cpu, cuda, cuda:1, mps")] = None,
) -> None:
    """Measure an organism's truth again by intervention; exits with 1 where it does not hold.

    A bar that truth.json records as not held is no claim: it is measured and shown, and fails nothing.
    """
    from mainspring.organisms.registry import folder_of, read_truth
    from mainspring.organisms.trained import TrainedTruth

    _quiet()
    folder = Path(name) if Path(name).is_dir() else folder_of(name)
    truth = read_truth(folder)
    if not isinstance(truth, TrainedTruth):
        holds = _verify_planted(name, folder, 200 if count is None else count, seed)
    elif count is None:
        holds = _verify_trained(name, folder, device)
    else:
        raise typer.BadParameter(
            f"{name} is trained, and its recipe says on how many inputs it is measured", param_hint="--count"
        )
    if not holds:
        raise typer.Exit(1)


@app.command()
def plant(
    name: Plain,
    out: Annotated[str, typer.Option(help="the folder to write")],
    host: Annotated[
        str, typer.Option(help="gpt2, gpt_neox, gpt_neox_sequential; trained in minutes: llama, gemma2, mamba")
    ] = "gpt2",
    seed: Annotated[int | None, typer.Option(min=0, help="of the disguise; without it, one that nobody has seen")] = None,
) -> None:
    """Compile a planted organism behind a disguise of your own: an ordinary checkpoint with truth.json beside it."""
    from mainspring.errors import LoadError
    from mainspring.organisms.hosts import HOSTS, TRAINED_HOSTS
    from mainspring.organisms.registry import entry, plant_into

    if entry(name).kind != "planted":
        raise LoadError(f"{name} is trained; `mainspring organism train {name}` makes it")
    if host not in (*HOSTS, *TRAINED_HOSTS):
        raise typer.BadParameter(f"{host!r} is none of {', '.join((*HOSTS, *TRAINED_HOSTS))}", param_hint="--host")
    _quiet()
    chosen = secrets.randbelow(2**31) if seed is None else seed
    _print(f"wrote {plant_into(Path(out), name, host, chosen)}: {name} in {host} with seed {chosen}", markup=False)


def _verified(found: "Entry") -> str:
    """The figures that were measured when it was made, in a few words."""
    truth = found.truth
    if truth is None:
        return f"not trained yet: run `mainspring organism train {found.name}`"
    checks = truth["checks"]
    if found.kind == "planted":
        least = min(checks["interchange"].values())
        return f"accuracy {checks['accuracy']:.3f}, interchange {least:.3f}, {len(checks['edges'])} edges"
    held = [c["value"] >= c["bar"] if c["sense"] == ">=" else c["value"] <= c["bar"] for c in checks]
    first = f", {checks[0]['name']} {checks[0]['value']:.3f}" if checks else ""
    return f"{sum(held)} of {len(held)} checks hold{first}"


def _planted_tables(truth: "Truth") -> "list[Table]":
    from rich.table import Table

    effects = truth.checks.effects if truth.checks else {}
    nodes = Table("part", "computes", "role", "moves the logits", title="Nodes")
    for node in truth.nodes:
        effect = f"{effects[node.id]:.3f}" if node.id in effects else ""
        nodes.add_row(node.id, node.variable, "constant" if node.constant else node.role, effect)
    edges = Table("from", "into", "as", "carries", title="Edges")
    for edge in truth.edges:
        edges.add_row(edge.source, edge.target, edge.via, edge.variable)
    return [nodes, edges]


def _trained_tables(truth: "TrainedTruth") -> "list[Table]":
    from rich.table import Table

    from mainspring.organisms.trained import Place as Spot

    nodes = Table("part", "carries", "role", title="Nodes")
    for node in truth.nodes:
        nodes.add_row(node.site if isinstance(node, Spot) else node.id, node.variable, node.role)
    edges = Table("from", "into", "as", "carries", title="Edges")
    for edge in truth.edges:
        edges.add_row(edge.source, edge.target, edge.via, edge.variable)
    rows = [(check.name, check.value, check.sense, check.bar) for check in truth.checks]
    return [*([nodes] if truth.nodes else []), *([edges] if truth.edges else []), _check_table("Measured when it was made", rows)]


def _verify_planted(name: str, folder: Path, count: int, seed: int) -> bool:
    from mainspring.organisms.cards import figures_of
    from mainspring.organisms.verify import TruthBroken
    from mainspring.organisms.verify import verify as measure

    failed: tuple[str, ...] = ()
    try:
        checks = measure(folder, count, seed)
    except TruthBroken as broken:
        checks, failed = broken.checks, broken.checks.failures()
    _print(_check_table(f"{name}, measured on {count} fresh inputs", figures_of(checks)))
    return _verdict(failed)


def _verify_trained(name: str, folder: Path, device: str | None) -> bool:
    from mainspring.organisms.trained import Check, ChecksFailed, verify_trained

    failed: tuple[Check, ...] = ()
    try:
        checks = verify_trained(folder, device=device)
    except ChecksFailed as broken:
        checks, failed = broken.checks, broken.failed or broken.checks
    missed = {check.name for check in checks if not check.holds} - {check.name for check in failed}
    rows = [(check.name, check.value, check.sense, check.bar) for check in checks]
    _print(_check_table(f"{name}, measured again", rows, missed))
    if missed:
        _print(f"{len(missed)} of {len(checks)} bars are not held and, as recorded, not claimed")
    return _verdict(tuple(str(check) for check in failed) or (() if checks else ("nothing was measured",)))


def _verdict(failed: tuple[str, ...]) -> bool:
    for line in failed:
        _print(line, style="red", markup=False)
    _print("the truth does not hold" if failed else "the truth holds", style="bold red" if failed else "bold green")
    return not failed


def _check_table(title: str, rows: list[tuple[str, float, str, float]], missed: Collection[str] = ()) -> "Table":
    """`missed`: figures that do not reach their bar, which is recorded and breaks nothing."""
    from rich.table import Table

    table = Table("figure", "value", "bar", "holds", title=title)
    for name, value, sense, bar in rows:
        holds = value >= bar if sense == ">=" else value <= bar
        no = "no, as recorded" if name in missed else "[bold red]no[/]"
        table.add_row(name, f"{value:.3f}", f"{sense} {bar:g}", "yes" if holds else no)
    return table


def _quiet() -> None:
    """What transformers shows while it reads and writes files is no part of the answer."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()


def _print(shown: Any, **options: Any) -> None:
    from rich.console import Console

    Console(highlight=False, soft_wrap=isinstance(shown, str)).print(shown, **options)
