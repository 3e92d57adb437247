"""What is written beside the weights of a facts organism: its truth and its card, from checks that were just measured."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mainspring.organisms.cards import trained_card
from mainspring.organisms.trained import Check, Place, TrainedTruth

if TYPE_CHECKING:
    from torch import Tensor

    from mainspring.models.model import Model

__all__ = ["record"]


def record(
    folder: Path,
    name: str,
    about: str,
    seed: int,
    verify: "Callable[[Model], tuple[Check, ...]]",
    minutes: float,
    *,
    nodes: Sequence[Place],
    known: str,
    limits: Sequence[str],
    spans: dict[str, Any],
    datasets: dict[str, Any],
    causal: dict[str, Any] | None = None,
    more: "Callable[[Model], str] | None" = None,
    directions: "Callable[[Model], dict[str, tuple[str, Tensor]]] | None" = None,
) -> None:
    """Measure, then write truth.json and card.md; `more` gives a further section of the card, `directions` the site of a named
    direction and the direction itself, kept in truth.safetensors.
    """
    from safetensors.torch import save_file

    from mainspring.models.load import load

    model = load(folder)
    found = directions(model) if directions else {}
    if found:
        kept = {f"direction/{label}": value.contiguous() for label, (_, value) in found.items()}
        save_file(kept, folder / "truth.safetensors")
    checks = verify(model)
    truth = TrainedTruth(
        organism=name,
        seed=seed,
        nodes=tuple(nodes),
        edges=(),
        directions={label: {"site": site, "tensor": f"direction/{label}"} for label, (site, _) in found.items()},
        spans=spans,
        datasets=datasets,
        known=known,
        checks=checks,
        limits=(*limits, *(f"Not held: {check}." for check in checks if not check.holds)),
        causal=causal or {},
    )
    truth.save(folder)
    count = sum(parameter.numel() for parameter in model.module.parameters())
    config = model.config
    size = (
        f"A {type(model.module).__name__} of {count:,} parameters: {config.num_hidden_layers} layers, width {config.hidden_size}."
    )
    (folder / "card.md").write_text(trained_card(about, truth, folder, minutes, [size, *([more(model)] if more else [])]))
