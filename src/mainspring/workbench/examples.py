"""Prompts to begin with: for an organism inputs of its own program or task, for a comics model its questions, else plain English."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from torch import Generator

from mainspring.models.inputs import accepted
from mainspring.organisms.catalogue import PROGRAMS
from mainspring.organisms.planted_tasks import planted_task
from mainspring.tasks.comic_strips.wording import WORDS
from mainspring.tasks.fact_world import draw
from mainspring.tasks.facts import facts
from mainspring.tasks.guard import guard
from mainspring.tasks.item import Item
from mainspring.tasks.task import Task
from mainspring.workbench.images import BUILT_IN, Images
from mainspring.workbench.prompting import prompts_for
from mainspring.workbench.shelf import Held

__all__ = ["Examples", "examples_for", "inputs_code"]


@dataclass(frozen=True)
class Examples:
    """A prompt, another one of as many tokens with another answer, and texts that have nothing to do with either."""

    clean: str
    other: str
    off: tuple[str, ...]
    words: int = 12

    def to_data(self) -> dict[str, object]:
        return asdict(self)


PLAIN = Examples(
    "The Eiffel Tower is in the city of",
    "The Brandenburg Gate is in the city of",
    ("Water boils at a temperature of", "My favourite food is", "Once upon a time there was"),
)
TASKS: dict[str, Callable[[], Task]] = {
    "facts": lambda: facts(16),
    "facts-mirror": lambda: facts(16),
    "guard": lambda: guard(16),
}
COMICS = Examples("plain panel two :", "flip panel two :", ("plain panel six :", "plain all", "flip this :"), 3)


def examples_for(held: Held) -> Examples:
    """Found once for each model."""
    if "examples" not in held.known:
        held.known["examples"] = _found(held)
    return held.known["examples"]


def inputs_code(held: Held) -> list[str]:
    """The lines that make `given`, the arguments of a run of this model."""
    model = held.model
    if model.map is not None and model.map.images and model.processor is not None:
        shown = Images().get(BUILT_IN[0]).fitted(model)
        return ["", *shown.code.splitlines(), f"given = {{'inputs': {prompts_for(held).answer!r}, 'images': image}}"]
    if model.tokenizer is not None:
        return [f"given = {{'inputs': {examples_for(held).clean!r}}}"]
    if "input_ids" in accepted(model.module):
        return ["", "import torch", "", "given = {'inputs': torch.tensor([[0, 1, 2, 3]])}"]
    return ["given = {'inputs': ...}  # what the model's forward takes"]


def _found(held: Held) -> Examples:
    name = held.name.removeprefix("organism:").partition("@")[0].partition("#")[0] if held.name.startswith("organism:") else ""
    if name in PROGRAMS:
        return _of_items(planted_task(PROGRAMS[name].program(), 16, 0).items, "other", 1)
    if name in TASKS:
        return _of_items(TASKS[name]().items, "subject" if "facts" in name else "opening", 1 if "facts" in name else 2)
    if name == "fact-world":
        return _of_documents(held)
    tokenizer = held.model.tokenizer
    if tokenizer is not None and set(WORDS) <= set(tokenizer.get_vocab()):
        return COMICS
    if tokenizer is not None and tokenizer.unk_token_id in tokenizer(PLAIN.clean)["input_ids"]:
        return _of_vocabulary(tokenizer)
    return PLAIN


def _of_items(items: Sequence[Item], other: str, words: int) -> Examples:
    """Of the items of a task, with the counterfactual of a name."""
    pairs = [(i.clean, i.counterfactuals[other].clean) for i in items if other in i.counterfactuals]
    texts = tuple(dict.fromkeys(item.clean for item in items))
    clean, another = pairs[0] if pairs else (texts[0], texts[-1])
    return Examples(clean, another, tuple(text for text in texts if text not in (clean, another))[:3], words)


def _of_documents(held: Held) -> Examples:
    """Facts of one wording, told up to the object."""
    given = draw("state", 24, Generator().manual_seed(0))
    chosen: dict[int, str] = {}
    for row, answer in zip(given.prompt, given.reply[:, 0].tolist(), strict=True):
        chosen.setdefault(answer, held.model.tokenizer.decode(row, skip_special_tokens=True).strip())
    clean, other, *off = chosen.values()
    return Examples(clean, other, tuple(off[:3]), 1)


def _of_vocabulary(tokenizer: Any) -> Examples:
    """Words that a small vocabulary has, in no order that means anything."""
    special = set(tokenizer.all_special_tokens)
    words = [word for word in tokenizer.get_vocab() if word not in special and not word.startswith("<")]
    words = sorted(words, key=tokenizer.get_vocab().__getitem__)[:20]
    texts = [" ".join(words[i : i + 4]) for i in range(0, len(words) - 3, 4)] or [" ".join(words)]
    return Examples(texts[0], texts[-1], tuple(texts[1:-1])[:3], 4)
