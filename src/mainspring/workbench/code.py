"""The lines of Python that make what a page shows; they run as they stand, in a notebook or a file."""

from collections.abc import Sequence
from typing import Any

from mainspring.workbench.images import Shown

__all__ = ["between_code", "file_code", "gaze_code", "heads_code", "load_code", "look_code", "organism_code"]
__all__ += ["off_target_code", "patch_code", "reading_code", "steer_code", "study_code", "truth_code"]


def load_code(model: str) -> str:
    return f"import mainspring as ms\n\nmodel = ms.load({model!r})"


def look_code(model: str, call: str, *more: Any) -> str:
    """A call of `figures.look`."""
    given = ", ".join(["model", *map(repr, more)])
    return _lines(
        load_code(model), "", f"from mainspring.workbench.figures.look import {call}", "", f"view = {call}({given})", "view"
    )


def heads_code(model: str, *, comic: bool, question: str, shown: Shown) -> str:
    lines = [load_code(model), "", "from mainspring.find.gaze import gaze_heads"]
    if comic:
        lines += ["from mainspring.tasks.comic_strips import comics", "", "heads = gaze_heads(model, comics(12))"]
    else:
        lines += ["from mainspring.tasks.regions import RegionItem", "", shown.code, f"regions = {shown.regions!r}"]
        lines += [
            f"items = [RegionItem({question!r}.replace('{{}}', str(i + 1)), image, regions, i) for i in range(len(regions))]"
        ]
        lines += ["heads = gaze_heads(model, items, batch=1)"]
    return _lines(*lines, "view = heads.view()", "view")


def gaze_code(model: str, shown: Shown, prompt: str, heads: Sequence[tuple[int, int]], target: Any, words: int) -> str:
    lines = [load_code(model), "", shown.code, f"prompt = {prompt!r}"]
    edits = ""
    if heads and target is not None:
        place = [round(float(n), 4) for n in target]
        lines += ["", "from mainspring.steer.gaze_edit import gaze", "", f"heads = {list(heads)!r}"]
        lines += ["(tokens,) = model.image_regions(prompt, images=image)", f"edits = gaze(heads, {tuple(place)!r}, tokens)"]
        edits = ", edits=edits"
    return _lines(*lines, "", f"text = model.generate(prompt, images=image{edits}, max_new_tokens={words}).text", "print(*text)")


def patch_code(model: str, clean: str, other: str, answers: tuple[str, str], call: str, *more: Any) -> str:
    """A call of `figures.patch` on a pair of prompts."""
    given = ", ".join(["model", "pair", *map(repr, more)])
    named = "".join(f", {answer!r}" for answer in answers) if any(answers) else ""
    return _lines(
        load_code(model),
        "",
        f"from mainspring.workbench.figures.patch import Pair, {call}",
        "",
        f"pair = Pair.of(model, {clean!r}, {other!r}{named})",
        f"found = {call}({given})",
        "found",
    )


def steer_code(model: str, prompt: str, direction: Sequence[str], layer: int, strength: float, words: int) -> str:
    """`direction` are the lines that make it: those of `between_code`, `organism_code` or `file_code`."""
    return _lines(
        load_code(model),
        "",
        "from mainspring.workbench.figures.steer import add_direction",
        *direction,
        f"edit = add_direction(direction, layer={layer}, strength={strength!r})",
        f"text = model.generate({prompt!r}, edits=edit, max_new_tokens={words}).text",
        "print(*text)",
    )


def off_target_code(steering: str, others: Sequence[str]) -> str:
    """How far other texts move under the edit of `steer_code`."""
    made = steering.partition("text = ")[0].replace("import add_direction", "import add_direction, off_target_view")
    return f"{made}view = off_target_view(model, edit, {list(others)!r})\nview\n"


def truth_code(organism: str) -> str:
    return _lines(
        load_code(f"organism:{organism}"),
        "",
        "from mainspring.organisms.registry import entry",
        "from mainspring.workbench.figures.truth import truth_views",
        "",
        f"views = truth_views(entry({organism!r}))",
        "views[0] if views else None",
    )


def study_code(name: str, quick: bool) -> str:
    return _lines(
        "from mainspring.studies import Setting, run_study",
        "",
        f"report = run_study({name!r}, Setting(quick={quick!r}))",
        "report",
    )


def reading_code(model: str, inputs: Sequence[str]) -> str:
    """`inputs` are the lines that make what `given` holds: the arguments of a run."""
    return _lines(load_code(model), *inputs, "", "trace = model.run(**given, read=SITE)", "value = trace[SITE]")


def between_code(plus: Sequence[str], minus: Sequence[str], layer: int) -> list[str]:
    call = f"direction = direction_between(model, {list(plus)!r}, {list(minus)!r}, layer={layer})"
    return ["from mainspring.workbench.figures.steer import direction_between", "", call]


def organism_code(model: str, name: str) -> list[str]:
    call = f"direction = organism_directions({model!r})[{name!r}].vector"
    return ["from mainspring.workbench.figures.directions import organism_directions", "", call]


def file_code(file: str, name: str) -> list[str]:
    call = f"direction = saved_directions({file!r})[{name!r}].vector"
    return ["from mainspring.workbench.figures.directions import saved_directions", "", call]


def _lines(*lines: str) -> str:
    return "\n".join(lines) + "\n"
