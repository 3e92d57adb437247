"""Gaze heads look at what is about to be described, and bending them makes the model describe something else.

One organism carries the claim: few of its many heads gaze, as many drawn at random among all do not steer, and pointing them leaves the
text its form. In the smaller one that it was grown from a quarter of all heads gaze, and a random set always holds some: a table compares
both. A third model answers as well and has an image encoder whose tokens do not show their place: nothing that is pointed at a panel
steers it.
"""

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING

import torch

from mainspring.find.gaze import gaze_heads
from mainspring.measure.bootstrap import bootstrap
from mainspring.measure.scores import Scores
from mainspring.organisms.comics import measures
from mainspring.organisms.comics.probes import PANELS, answers, look, writers
from mainspring.organisms.comics_scattered.checks import best_of, tokens_that_show
from mainspring.studies.claim import Claim, Figure, Note, Part
from mainspring.studies.running import Setting, study
from mainspring.tasks.comic_strips import comics, sample
from mainspring.tasks.comic_strips.judge import panel_described
from mainspring.tasks.comic_strips.strips import Picture
from mainspring.views.specs import CurveView, Line, TableView

if TYPE_CHECKING:
    from mainspring.models.model import Model

__all__ = ["gaze"]

CHANCE = 1 / 6
LEAK = CHANCE + 0.1
"""What sets of heads that should not steer may reach."""
SCHEDULE = (4, 1, 6, 2, 5, 3)

Heads = Sequence[tuple[int, int]]


@dataclass(frozen=True, eq=False)
class Sized:
    """One organism: its scores, its heads by score, and the k that was chosen on the strips of the search."""

    name: str
    model: "Model"
    scores: Scores
    ranked: Heads
    k: int

    @property
    def top(self) -> Heads:
        return self.ranked[: self.k]

    @property
    def bottom(self) -> Heads:
        return self.ranked[-self.k :]


@study(
    "gaze-heads",
    "A few heads look at what is described, and pointing them decides what is",
    reference="Gaze Heads: How VLMs Look at What They Describe, 2026",
    organisms=("comics-large", "comics", "comics-scattered"),
)
def gaze(setting: Setting) -> Iterator[Part]:
    """Heads are found on some strips and bent on others; the prompt names no panel, and the judge is exact: three words in their order."""
    if setting.model is not None:
        yield Note(
            "The judge knows what the organism's strips show. For a real model use find.gaze_heads and steer.gaze on images of yours."
        )
        return
    pictures = sample(max(8, setting.count // 4 if setting.quick else setting.count), 12 + 100 * setting.seed)
    part = pictures[: max(8, len(pictures) // 3)]
    large = _sized(setting, "comics-large")
    yield from _found(large, part)
    facts = yield from _steered(setting, large, pictures, part)
    yield from _while_it_speaks(large, part)
    yield from _elsewhere(setting, large, len(part))
    yield from _smaller(setting, large, _sized(setting, "comics"), facts, pictures, part)
    yield from _twin(setting, part)


def _sized(setting: Setting, name: str) -> Sized:
    model = setting.open(name)
    scores = gaze_heads(model, comics(12 if setting.quick else 24, setting.seed))
    ranked = [(entry.index[0], entry.index[1]) for entry in scores.ranked()]
    searched = sample(12, 2 * setting.seed + 1_000_000)  # the seed of the task's find split
    return Sized(name, model, scores, ranked, measures.smallest_top(model, searched, ranked, len(ranked) // 3))


def _found(at: Sized, part: Sequence[Picture]) -> Iterator[Part]:
    shuffled, earlier = at.scores.controls["shuffled labels"], at.scores.controls["one token earlier"]
    assert isinstance(shuffled, torch.Tensor) and isinstance(earlier, torch.Tensor)
    yield Figure(at.scores.view(), "gaze score: attention of the last prompt token on the panel that is asked for")
    yield Claim(
        "at least two heads stand out (score of the second)",
        float(at.scores.values.flatten().topk(2).values[-1]),
        0.45,
        control=float(shuffled.max()),
        control_name="labels shuffled",
        control_bar=0.3,
    )
    yield Claim("the best head looks at next to nothing else (score)", float(at.scores.values.max()), 0.8)
    yield Claim("one token earlier, where nothing is about to be described, no head looks", float(earlier.max()), 0.3, "<=")
    yield Claim(
        "two halves of the strips agree on the heads (correlation)", float(at.scores.controls["split-half correlation"]), 0.9
    )
    yield Claim("the organism answers (panel by number, exact words)", measures.panel_exact(at.model, part), 0.95)
    for few, name in ((at.top[:4], "the first four"), (at.top, f"the top {at.k}")):
        colons, numbers = measures.staircase(at.model, part, few)
        yield Claim(
            f"unsteered, {name} climb from panel to panel as it is described (staircase)",
            colons,
            0.95,
            control=numbers,
            control_name="at the rows of the numbers",
            control_bar=0.5,
        )


def _rates(at: Sized, part: Sequence[Picture]) -> dict[str, float]:
    """Hit rates by set of heads."""
    few, half = part[:8], at.ranked[len(at.ranked) // 2 :]
    random = [float(_hits(at.model, few, _drawn(at.ranked, at.k, seed)).mean()) for seed in range(6)]
    lower = [float(_hits(at.model, few, _drawn(half, at.k, seed)).mean()) for seed in range(4)]
    return {
        "random": fmean(random),
        "lower half": fmean(lower),
        "lowest": float(_hits(at.model, part, at.bottom).mean()),
        "all": float(_hits(at.model, part, at.ranked).mean()),
        "none": float(_hits(at.model, part, []).mean()),
        "schedule": fmean(n.exact for n in measures.tours(at.model, few, at.top, SCHEDULE)),
        "eight": measures.scene_hits(at.model, sample(len(few), 14, "eight"), at.top),
    }


def _steered(
    setting: Setting, at: Sized, pictures: Sequence[Picture], part: Sequence[Picture]
) -> Generator[Part, None, dict[str, float]]:
    heads = len(at.ranked)
    yield Claim(f"k is at most a third of the {heads} heads (chosen on the strips of the search)", float(at.k), heads / 3, "<=")
    rates = _rates(at, part)
    steered = _hits(at.model, pictures, at.top)
    yield Claim(
        f"the top {at.k} of {heads} heads decide what is described",
        bootstrap(steered, seed=setting.seed),
        0.8,
        control=rates["none"],
        control_name="not steered",
        control_bar=LEAK,
    )
    tenth = heads // 10
    yield Claim(
        f"a tenth of the heads, the top {tenth}, does too", float(_hits(at.model, pictures, at.ranked[:tenth]).mean()), 0.8
    )
    yield Claim(f"{at.k} random heads among all do not", rates["random"], LEAK, "<=")
    yield Claim(f"{at.k} random heads of the lower half do not", rates["lower half"], LEAK, "<=")
    writing = writers(at.model, part[:8])
    leaking = fmean(float(_hits(at.model, part[:8], _drawn(writing, at.k, seed)).mean()) for seed in range(6))
    yield Note(
        f"{len(writing)} of the {heads} heads write more than a hundredth of the stream into the text, so most heads that are drawn at "
        f"random do little. {at.k} random ones of those {len(writing)} steer in {leaking:.2f} of the cases."
    )
    yield Claim(f"the {at.k} lowest heads do not", rates["lowest"], LEAK, "<=")
    yield Claim("and all heads at once break the text", rates["all"], 0.05, "<=")
    sizes = [k for k in (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64) if k <= heads]
    sweep = [float(_hits(at.model, part[:8], at.ranked[:k]).mean()) for k in sizes]
    line = Line("hit rate", tuple(map(float, sizes)), tuple(sweep))
    names = ("heads that are pointed", "share of targets described", "Top-k sweep")
    yield Figure(CurveView((line,), *names, bars=(CHANCE,), bar_names=("chance",)))
    wrong = measures.map_hits(at.model, part[:8], at.top)
    yield Claim("pointed at the next panel's tokens, the target is not described", wrong["next panel"], 0.05, "<=")
    yield Claim("under a transposed map of the image neither", wrong["transposed grid"], 0.25, "<=")
    return rates | {"top": float(steered.mean())}


def _while_it_speaks(at: Sized, part: Sequence[Picture]) -> Iterator[Part]:
    tours = measures.tours(at.model, part, at.top, SCHEDULE)
    free = measures.tours(at.model, part, [], None, judged_as=SCHEDULE)
    yield Claim(
        "a schedule of targets is followed while the text runs (segments exact)",
        fmean(n.exact for n in tours),
        0.8,
        control=fmean(n.exact for n in free),
        control_name="not steered",
        control_bar=0.15,
    )
    yield Claim("and the text keeps its form", fmean(n.form for n in tours), 0.9)
    followed, ended = measures.switches(at.model, part[:6], at.top)
    yield Claim("a switch in mid-generation is followed within 6 tokens", followed, 0.8)
    yield Note(f"In {ended:.2f} of the switches every sentence keeps its form; a switch inside a sentence may break that one.")


def _elsewhere(setting: Setting, at: Sized, count: int) -> Iterator[Part]:
    """Layouts that the heads were not found on."""
    layouts = {
        "scene": ("heads found on strips steer scenes of loose figures, by their boxes", 13, 0.35),
        "eight": ("and eight panels, a layout that was never trained on", 14, 1 / 8 + 0.1),
    }
    for layout, (name, seed, leak) in layouts.items():
        pictures = sample(count, seed + 100 * setting.seed, layout)  # pyright: ignore[reportArgumentType]
        yield Claim(
            name,
            measures.scene_hits(at.model, pictures, at.top),
            0.8,
            control=measures.scene_hits(at.model, pictures, at.bottom),
            control_name="lowest heads",
            control_bar=leak,
        )


def _smaller(
    setting: Setting, large: Sized, small: Sized, facts: dict[str, float], pictures: Sequence[Picture], part: Sequence[Picture]
) -> Iterator[Part]:
    """What a model of half the heads carries."""
    rates = _rates(small, part)
    steered = _hits(small.model, pictures, small.top)
    yield Claim(
        f"in a model of {len(small.ranked)} heads the top {small.k} decide too",
        bootstrap(steered, seed=setting.seed),
        0.8,
        control=rates["lower half"],
        control_name="random heads of the lower half",
        control_bar=LEAK,
    )
    rates["top"] = float(steered.mean())
    bars = {
        "top": (">=", 0.8),
        "random": ("<=", LEAK),
        "lower half": ("<=", LEAK),
        "lowest": ("<=", LEAK),
        "all": ("<=", 0.05),
        "none": ("<=", LEAK),
        "schedule": (">=", 0.8),
        "eight": (">=", 0.8),
    }
    names = {
        "top": "top k",
        "random": "k random heads among all",
        "lower half": "k random heads of the lower half",
        "lowest": "k lowest heads",
        "all": "all heads",
        "none": "not steered",
        "schedule": "schedule of targets (segments)",
        "eight": "eight panels, top k",
    }

    def cell(value: float, sense: str, bar: float) -> str:
        return f"{value:.3f}" if (value >= bar if sense == ">=" else value <= bar) else f"{value:.3f}, does not hold"

    rows = [
        ("heads", "", *(f"{len(at.ranked)}" for at in (large, small))),
        ("k, chosen on the strips of the search", "", *(f"{at.k}" for at in (large, small))),
        ("best head's score", ">= 0.8", *(cell(float(at.scores.values.max()), ">=", 0.8) for at in (large, small))),
        *(
            (names[key], f"{sense} {bar:.3g}", cell(facts[key], sense, bar), cell(rates[key], sense, bar))
            for key, (sense, bar) in bars.items()
        ),
    ]
    yield Figure(TableView(("hit rate of the target", "bar", large.name, small.name), tuple(rows), "Two sizes"))


def _twin(setting: Setting, pictures: Sequence[Picture]) -> Iterator[Part]:
    """The twin whose encoder's tokens do not show their place: it answers, and no set of heads that is pointed at a place steers it."""
    twin = setting.open("comics-scattered")
    scores = gaze_heads(twin, comics(12, setting.seed))
    heads = [(entry.index[0], entry.index[1]) for entry in scores.ranked()]
    yield Claim("a twin whose image tokens do not show their place answers too", measures.panel_exact(twin, pictures), 0.95)
    best, size = best_of(twin, pictures[:8], heads, (1, 2, 4, 8, 12, 16, 24, 32))
    shown = tokens_that_show(twin, pictures[:8])
    yield Claim(
        f"and no top-k set of its heads steers it (the best is k = {size})",
        best,
        LEAK,
        "<=",
        control=shown,
        control_name="seeing only the tokens that do show the panel",
        control_bar=0.8,
    )


def _hits(model: "Model", pictures: Sequence[Picture], heads: Heads) -> torch.Tensor:
    """[picture] the share of its six panels that are described when `this` is pointed at them; without heads, what is said anyway."""
    rows: list[list[float]] = []
    for k in range(1, 7):
        edits = look(heads, PANELS[k - 1]) if heads else None
        texts = answers(model, pictures, "this", "plain", edits=edits)
        rows.append([float(panel_described(t, p.figures, "plain") == k) for t, p in zip(texts, pictures, strict=True)])
    return torch.tensor(rows).mean(0)


def _drawn(among: Heads, count: int, seed: int) -> Heads:
    order = torch.randperm(len(among), generator=torch.Generator().manual_seed(seed)).tolist()
    return [among[i] for i in order[:count]]
