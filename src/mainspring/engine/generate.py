"""Generation with reads and edits in every forward pass, on the model's own machinery.

The model's `generate` prepares everything (caches, processors, stopping rules, image and encoder inputs) and hands over through its
`custom_generate` argument; the loop here then runs one forward pass per token with hooks on only while the module computes.
Positions mean positions of the whole sequence; step k is the position whose output predicts generated token k. Keys and values are
edited wherever attention reads them, so an edited key stays edited for every later token though the cache holds the original.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from mainspring.edits import Edit, Edits, as_edits
from mainspring.engine.attention import routed
from mainspring.engine.flow import LATER, Flow
from mainspring.engine.plan import Atlas, Plan, attention_configs, make_plan
from mainspring.engine.run import check_fired
from mainspring.errors import InputError, PositionError
from mainspring.rows import Rows
from mainspring.sites import Site
from mainspring.trace import Trace, Values
from mainspring.windows import compile_window

__all__ = ["Controller", "Generation", "Sampling", "Step", "Stream", "start"]


@dataclass(frozen=True)
class Sampling:
    """How tokens are chosen. Without temperature, top_p and top_k the likeliest token is taken."""

    max_new_tokens: int = 20
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    seed: int | None = None
    stop: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise InputError(f"max_new_tokens={self.max_new_tokens}: generate at least one token")
        if self.temperature is not None and not self.temperature > 0:
            raise InputError(f"temperature={self.temperature}: give a positive number, or leave it out to take the likeliest token")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise InputError(f"top_p={self.top_p} must lie in (0, 1]")
        if self.top_k is not None and self.top_k < 1:
            raise InputError(f"top_k={self.top_k} must be at least 1")

    @property
    def samples(self) -> bool:
        return any(x is not None for x in (self.temperature, self.top_p, self.top_k))

    def options(self) -> dict[str, Any]:
        """The model's own generation options; what is not asked for is switched off rather than left to a checkpoint's defaults."""
        chosen: dict[str, Any] = {"max_new_tokens": self.max_new_tokens, "do_sample": self.samples, "num_beams": 1}
        chosen |= {"temperature": self.temperature, "top_p": self.top_p, "top_k": self.top_k}
        if self.samples:
            chosen = {k: v for k, v in chosen.items() if v is not None} | {"top_k": self.top_k or 0}
        if self.stop is not None:
            chosen["eos_token_id"] = list(self.stop)
        return chosen


@dataclass(frozen=True, eq=False)
class Step:
    """One generated token per row. `text` is what it adds to each row's text; `done` marks rows that have ended."""

    index: int
    tokens: Tensor
    text: tuple[str, ...] | None
    done: Tensor
    logits: Tensor
    edits: Edits


Controller = Callable[[Step], Edit | Any | None]
"""Called between two tokens; returns the edits for what follows, or None to keep those in force."""


@dataclass(frozen=True, eq=False)
class Generation(Trace):
    """A finished generation: `tokens` [batch, prompt + new], `new_tokens` [batch, new], `text` the new text of each row.

    `trace[site]` covers every position that went through the model: the prompt and all generated tokens but the last.
    """

    new_tokens: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.long))


class Stream:
    """An iterator over the steps of a generation; `result` is the finished `Generation` once it is exhausted."""

    def __init__(self, steps: Iterator[Step], finish: Callable[[], Generation]) -> None:
        self._steps, self._finish, self._result = steps, finish, None
        self._exhausted = False

    def __iter__(self) -> "Stream":
        return self

    def __next__(self) -> Step:
        try:
            return next(self._steps)
        except StopIteration:
            self._exhausted = True
            raise

    def close(self) -> None:
        """End the generation here."""
        self._steps.close()  # type: ignore[attr-defined]

    @property
    def result(self) -> Generation:
        """Everything generated; runs what is left."""
        if self._result is None:
            for _ in self:
                pass
            self._result = self._finish()
        return self._result


@dataclass(eq=False)
class _State:
    """What the loop moves along."""

    ids: Tensor
    arguments: dict[str, Any]
    processor: Any
    stopping: Any
    config: Any
    new: list[Tensor] = field(default_factory=list)
    kept: dict[Site, list[Tensor]] = field(default_factory=dict)
    fired: dict[int, tuple[Edit, int]] = field(default_factory=dict)
    shown: list[str] = field(default_factory=list)


def start(
    atlas: Atlas,
    kwargs: Mapping[str, Any],
    rows: Mapping[str, Rows],
    reads: tuple[Site, ...],
    edits: Edits,
    sampling: Sampling,
    *,
    controller: Controller | None = None,
    tokenizer: Any = None,
    original: bool = False,
    batch: int | None = None,
) -> Stream:
    """Prepare a generation; nothing runs until the stream is asked for its first step, but impossible requests fail here."""
    generate = getattr(atlas.module, "generate", None)
    can = getattr(atlas.module, "can_generate", lambda: False)
    if generate is None or not can():
        raise InputError(f"{type(atlas.module).__name__} does not generate; use model.run")

    def plan_for(changes: Edits) -> Plan:
        return make_plan(atlas, reads, changes, rows, batch=batch, until="end", generating=True)

    plan = plan_for(edits)
    steps = _Loop(atlas, kwargs, rows, plan, plan_for, sampling, controller, tokenizer, original, batch)
    return Stream(steps.run(), steps.finish)


class _Loop:
    def __init__(
        self,
        atlas: Atlas,
        kwargs: Mapping[str, Any],
        rows: Mapping[str, Rows],
        plan: Plan,
        plan_for: Callable[[Edits], Plan],
        sampling: Sampling,
        controller: Controller | None,
        tokenizer: Any,
        original: bool,
        batch: int | None,
    ) -> None:
        self.atlas, self.module, self.kwargs, self.rows = atlas, atlas.module, dict(kwargs), dict(rows)
        self.plan, self.first_plan, self.plan_for = plan, plan, plan_for
        self.sampling, self.controller, self.tokenizer = sampling, controller, tokenizer
        self.original, self.batch = original, batch
        self.state: _State | None = None
        self.flow = self._flow(plan, 0)
        self.fired: dict[int, tuple[Edit, int]] = {}
        self.kept: dict[Site, list[Tensor]] = {}

    def _flow(self, plan: Plan, start: int) -> Flow:
        flow = Flow(
            plan.points, self.rows, n_edits=len(plan.edits), batch=self.batch, original=self.original, fresh=0
        )
        flow.start = start
        return flow

    def run(self) -> Iterator[Step]:
        """The steps. Hooks and gradient mode hold only while the model computes, never while the caller has control."""
        with self._computing():
            state = self.state = self._prepare()
        generator = None
        if self.sampling.seed is not None:
            generator = torch.Generator(state.ids.device).manual_seed(self.sampling.seed)
        pad = state.config._pad_token_tensor
        unfinished = torch.ones(state.ids.shape[0], dtype=torch.bool, device=state.ids.device)
        ends = any(hasattr(c, "eos_token_id") for c in state.stopping)
        for index in range(self.sampling.max_new_tokens):
            with self._computing():
                scores, logits = self._forward(index)
            if self.sampling.samples:
                chosen = torch.multinomial(torch.softmax(scores, dim=-1), 1, generator=generator).squeeze(1)
            else:
                chosen = scores.argmax(dim=-1)
            if ends and pad is not None:
                chosen = torch.where(unfinished, chosen, pad.to(chosen.device))
            state.ids = torch.cat([state.ids, chosen[:, None]], dim=-1)
            state.new.append(chosen)
            unfinished = unfinished & ~state.stopping(state.ids, None)
            step = Step(index, chosen, self._text(state), ~unfinished, logits, self.plan.edits)
            yield step
            if not bool(unfinished.any()):
                break
            if self.controller is not None and (changes := self.controller(step)) is not None:
                self._exchange(as_edits(changes))

    def _computing(self) -> ExitStack:
        stack = ExitStack()
        stack.enter_context(torch.no_grad())
        if self.flow.attention:
            stack.enter_context(routed(attention_configs(self.plan.points)))
        stack.enter_context(self.flow.attach())
        return stack

    def _prepare(self) -> _State:
        """Let the model's own `generate` prepare caches, encoder outputs, processors and stopping rules."""
        caught: dict[str, Any] = {}

        def take_over(module: Any, input_ids: Tensor, **given: Any) -> Tensor:
            caught.update(given, input_ids=input_ids)
            return input_ids

        options = self.sampling.options()
        if any(point.place.site.name == "logits" for point in self.plan.points):
            options["logits_to_keep"] = 0  # all positions, where by default only the last is computed
        self.module.generate(**self.kwargs, **options, custom_generate=take_over)  # type: ignore[operator]
        for unused in ("synced_gpus", "streamer", "assistant_model", "tokenizer"):
            caught.pop(unused, None)
        return _State(
            caught.pop("input_ids"),
            caught,
            caught.pop("logits_processor"),
            caught.pop("stopping_criteria"),
            caught.pop("generation_config"),
        )

    def _forward(self, index: int) -> tuple[Tensor, Tensor]:
        state, module = self.state, self.module
        assert state is not None
        total = state.ids.shape[1]
        cached = bool(state.arguments.get("use_cache", False)) and index > 0
        self.flow.start, self.flow.fresh = (total - 1, 1) if cached else (0, total)
        if index == 0:
            outputs = module._prefill(state.ids, state.config, state.arguments)  # type: ignore[operator]
        else:
            inputs = module.prepare_inputs_for_generation(  # type: ignore[operator]
                state.ids, next_sequence_length=1 if cached else None, **state.arguments
            )
            if not cached:
                self.flow.kept.clear()
            outputs = module(**inputs, return_dict=True)
        state.arguments = module._update_model_kwargs_for_generation(  # type: ignore[operator]
            outputs, state.arguments, is_encoder_decoder=bool(module.config.is_encoder_decoder)  # type: ignore[union-attr]
        )
        logits = outputs.logits[:, -1].to(copy=True, dtype=torch.float32, device=state.ids.device)
        return state.processor(state.ids, logits), logits

    def _exchange(self, edits: Edits) -> None:
        self._collect()
        self.plan = self.plan_for(edits)
        self.flow = self._flow(self.plan, self.flow.start)

    def _collect(self) -> None:
        for edit, count in zip(self.plan.edits, self.flow.fired, strict=True):
            _, before = self.fired.get(id(edit), (edit, 0))
            self.fired[id(edit)] = (edit, before + count)
        for site, values in self.flow.kept.items():
            self.kept.setdefault(site, []).extend(values)
        self.flow.fired, self.flow.kept = [0] * len(self.plan.edits), {}

    def _text(self, state: _State) -> tuple[str, ...] | None:
        if self.tokenizer is None:
            return None
        whole = self._decode(torch.stack(state.new, dim=1))
        # a character may need several tokens; until it is complete the text may still change at its end
        before = state.shown or [""] * len(whole)
        state.shown = whole
        return tuple(now[len(old) :] if now.startswith(old) else now for now, old in zip(whole, before, strict=True))

    def _decode(self, tokens: Tensor) -> list[str]:
        return [self.tokenizer.decode(row, skip_special_tokens=True) for row in tokens]

    def finish(self) -> Generation:
        state = self.state
        assert state is not None
        self._collect()
        first = [self.fired[id(edit)][1] for edit in self.first_plan.edits]
        check_fired(self.first_plan, first)
        values = {site: self._assembled(site, kept) for site, kept in self.kept.items()}
        depths = {stack: self.atlas.depth(stack) for stack in {s.stack for s in values if s.layers is not None}}
        new = torch.stack(state.new, dim=1)
        return Generation(
            Values(values, self.rows, depths),
            fired={edit: count for edit, count in self.fired.values()},
            tokens=state.ids,
            text=None if self.tokenizer is None else tuple(self._decode(new)),
            new_tokens=new,
        )

    def _assembled(self, site: Site, chunks: list[Tensor]) -> Tensor:
        """The steps of one read, joined along the tokens, and narrowed to the tokens that were asked for."""
        place = self.atlas.place(site.bare)
        narrowed = [(k, i) for k, i in site.select if k not in LATER]
        dropped = {"dim": ("dim", "head_dim")}
        gone = {a for k, i in narrowed if isinstance(i, int) for a in dropped.get(k, (k,))}
        axes = tuple(a for a in place.axes if a not in gone)
        token = next((i for i, a in enumerate(axes) if a in ("pos", "query")), None)
        if token is None or place.site.stack != "" or len(chunks) == 1:
            value = chunks[-1]
        else:
            if "key" in axes and not site.name.startswith("cross."):
                chunks = _padded(chunks, axes.index("key"), 0.0 if site.name.endswith("pattern") else float("-inf"))
            value = chunks[-1] if site.name in ("cross.k", "cross.v") else torch.cat(chunks, dim=token)
        select = tuple((k, i) for k, i in site.select if k in LATER)
        if not select:
            return value
        layouts = {axis: self.rows[stack] for axis, stack in place.rows_of.items() if stack in self.rows}
        window = compile_window(select, axes, tuple(value.shape), layouts, final=False, name=str(site))
        if window.ragged or window.empty or window.hit is not None:
            raise PositionError(f"{site} picks positions that not every row reached, or a different number in different rows")
        return window.get(value).clone()


def _padded(chunks: list[Tensor], axis: int, fill: float) -> list[Tensor]:
    """Attention weights of all steps over the keys of the last: keys that came later have no weight."""
    longest = max(c.shape[axis] for c in chunks)
    out = []
    for chunk in chunks:
        missing = list(chunk.shape)
        missing[axis] = longest - chunk.shape[axis]
        out.append(torch.cat([chunk, chunk.new_full(missing, fill)], dim=axis) if missing[axis] else chunk)
    return out
