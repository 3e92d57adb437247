"""Prompts to begin with: for an organism inputs of its own program or task, for a comics model its questions, else plain English."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from torch import Generator

from mainspring.models.inputs import accepted
from mainspring.models.words import is_unknown_word
from mainspring.organisms.catalogue import PROGRAMS
from mainspring.organisms.planted_tasks import planted_task
from mainspring.tasks.algebra_task import group_facts
from mainspring.tasks.belief_stories import beliefs
from mainspring.tasks.box_stories import told_boxes
from mainspring.tasks.comic_strips.wording import WORDS
from mainspring.tasks.copying_task import copying
from mainspring.tasks.fact_world import draw
from mainspring.tasks.facts import facts
from mainspring.tasks.guard import guard
from mainspring.tasks.item import Item
from mainspring.tasks.pair_icl_task import functions
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
TASKS: dict[str, tuple[Callable[[], Task], str]] = {
    "algebra": (lambda: group_facts(n=16), "fact"),
    "belief": (lambda: beliefs(16), "drink"),
    "boxes": (lambda: told_boxes(16), "query"),
    "copy": (lambda: copying(16), "source"),
    "facts": (lambda: facts(16), "subject"),
    "facts-mamba": (lambda: facts(16), "subject"),
    "facts-mirror": (lambda: facts(16), "subject"),
    "guard": (lambda: guard(16), "opening"),
    "pair-icl": (lambda: functions(16), "task"),
}
"""The task of an organism, and the counterfactual of it that asks for another answer."""
COMICS = Examples("plain this :", "plain this all", ("plain panel six :", "plain all", "flip this :"), 3)


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
        task, other = TASKS[name]
        return _of_items(task().items, other, 2 if name == "guard" else 1)
    if name == "fact-world":
        return _of_documents(held)
    tokenizer = held.model.tokenizer
    if tokenizer is not None and set(WORDS) <= set(tokenizer.get_vocab()):
        return COMICS
    return PLAIN if tokenizer is None or _knows(tokenizer, PLAIN.clean) else _of_vocabulary(tokenizer)


def _knows(tokenizer: Any, text: str) -> bool:
    """Whether it has tokens for all of a text; one of whole words has a token for what it does not know, or refuses it."""
    try:
        return tokenizer.unk_token_id not in tokenizer(text)["input_ids"]
    except Exception as error:
        if is_unknown_word(error):
            return False
        raise


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
