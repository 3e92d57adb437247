"""`Model`: an untouched module with its tokenizer and a map of its sites."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from mainspring.edits import OPERATIONS, Edit, as_edits
from mainspring.engine.plan import as_sites, concrete, make_plan
from mainspring.engine.run import execute
from mainspring.errors import EditError, InputError, ShapeMismatch, SiteError, SiteRefused, UnmappedModel, nearest
from mainspring.models.atlas import Atlas
from mainspring.models.image_tokens import ImageTokens, image_regions, sizes_of
from mainspring.models.inputs import Prepared, accepted, check_vocabulary, complete, prepare_inputs, takes_tokens, token_rows
from mainspring.models.maps import Map
from mainspring.sites import Site, parse_site
from mainspring.trace import Trace

if TYPE_CHECKING:
    from pathlib import Path

    from mainspring.engine.edges.attribution import EdgeScores
    from mainspring.engine.edges.graph import Graph
    from mainspring.engine.generate import Controller
    from mainspring.engine.sweeps.sweep import Sweep
    from mainspring.models.listing import SiteTable
    from mainspring.models.report import Report

__all__ = ["Can", "Model"]

Reads = Site | str | Iterable[Site | str] | None
Changes = Edit | Iterable[Edit | Iterable[Edit]] | None

VERBS = ("read", "write", "grad", *OPERATIONS)
"""What `can` answers for."""


@dataclass(frozen=True)
class Can:
    """Whether a site offers a verb; false with the reason why not."""

    able: bool
    reason: str = ""

    def __bool__(self) -> bool:
        return self.able


class Model:
    """An `nn.Module` that can be read and edited at named sites. The module itself is never changed.

    Made by `ms.load` and `ms.wrap`.
    """

    def __init__(self, module: nn.Module, layout: Map | None, maps: Mapping[str, Map], tokenizer: Any, processor: Any) -> None:
        self.module, self.tokenizer, self.processor = module, tokenizer, processor
        self.atlas = Atlas(module, layout, maps)
        self.map = layout
        self._names = accepted(module)
        self._takes_tokens = takes_tokens(module, self._names)

    # ---- what it is ----

    @property
    def family(self) -> str:
        """The name of the map in use, or "unmapped"."""
        return self.map.family if self.map is not None else "unmapped"

    @property
    def n_layers(self) -> int:
        return self.atlas.depth("")

    @property
    def device(self) -> torch.device:
        return self.atlas.device

    @property
    def dtype(self) -> torch.dtype:
        return self.atlas.dtype

    @property
    def config(self) -> Any:
        return getattr(self.module, "config", None)

    # ---- running ----

    def prepare(
        self, inputs: Any, *, images: Any = None, spans: Mapping[str, Any] | None = None, side: str = "right"
    ) -> Prepared:
        """What a run would give the module: tokens, masks and the layout of the rows."""
        if self._are_tokens(inputs, images, spans):
            return token_rows(inputs, self.atlas.vocabulary, self.device)
        return prepare_inputs(
            inputs,
            module=self.module,
            names=self._names,
            tokenizer=self.tokenizer,
            processor=self.processor,
            images=images,
            spans=spans,
            side=side,
            own_positions=self.map is not None and self.map.positions == "own",
            vocabulary=self.atlas.vocabulary,
            device=self.device,
        )

    def _are_tokens(self, inputs: Any, images: Any, spans: Any) -> bool:
        """Whether the inputs are a tensor of tokens and nothing else: the most common ones."""
        return type(inputs) is Tensor and self._takes_tokens and images is None and not spans and not inputs.is_floating_point()

    def run(
        self,
        inputs: Any = None,
        *,
        read: Reads = None,
        edits: Changes = None,
        grad_of: Callable[[Trace], Tensor] | Site | str | None = None,
        until: Site | str | None = "auto",
        original: bool = False,
        images: Any = None,
        spans: Mapping[str, Any] | None = None,
        differentiable: bool = False,
    ) -> Trace:
        """One forward pass with reads and edits.

        Args:
            inputs: text, a list of texts, token ids (tensor [pos] or [batch, pos], or lists of any lengths), chat messages, or a
                dictionary of the module's own arguments.
            read: sites to keep. Reads see the value after the edits at their site.
            edits: what to change, in order.
            grad_of: a function of the trace giving one number (or one per row), or a site; its gradients at the sites of `read`
                are in `trace.grad`.
            until: "auto" stops after the last layer that is needed when only layers are read; "end" runs to the logits; a site
                stops after its layer.
            original: keep the values before the edits at their site.
            images: images for a vision-language model's processor.
            spans: named stretches of tokens: a piece of the text, a (start, stop) pair, or one of these per row.
            differentiable: keep values and logits in the autograd graph, so that what an edit holds can be trained.
        """
        reads, changes = as_sites(read), as_edits(edits)
        tokens = self._are_tokens(inputs, images, spans)
        # the embedding itself refuses a token that it does not have
        prepared = token_rows(inputs, None, self.atlas.device) if tokens else self.prepare(inputs, images=images, spans=spans)
        if grad_of is not None or differentiable:
            until = "end" if until == "auto" else until
        plan = make_plan(self.atlas, reads, changes, prepared.rows, batch=prepared.batch, until=until)
        try:
            return execute(
                self.atlas,
                complete(prepared, self._names, self.map),
                plan,
                prepared.rows,
                batch=prepared.batch,
                original=original,
                grad_of=grad_of,
                attached=differentiable,
                tokens=prepared.tokens,
                text=prepared.text,
            )
        except IndexError:
            if tokens:
                check_vocabulary(inputs, self.atlas.vocabulary)  # says which token it was
            raise

    def generate(
        self,
        inputs: Any = None,
        *,
        edits: Changes = None,
        read: Reads = None,
        controller: "Controller | None" = None,
        max_new_tokens: int = 20,
        temperature: float | None = None,
        top_p: float | None = None,
        top_k: int | None = None,
        seed: int | None = None,
        stop: int | Iterable[int] | None = None,
        stream: bool = False,
        original: bool = False,
        images: Any = None,
        spans: Mapping[str, Any] | None = None,
    ) -> Any:
        """Generate with edits in the prefill and in every decoding step; returns a `Generation`, or a `Stream` of steps.

        Without edits the tokens are those of the module's own `generate`. Positions are those of the whole sequence, negative
        ones count from the end of the prompt, and `step=k` is the position that predicts generated token k.

        Args:
            inputs: as for `run`; a batch is padded on the left.
            edits: what to change, in order.
            read: sites to keep, over the prompt and every generated token but the last.
            controller: called with each `Step`; may return other edits for what follows.
            max_new_tokens: how many tokens at most.
            temperature: sample, with logits divided by this.
            top_p: sample from the likeliest tokens that hold this much probability.
            top_k: sample from this many likeliest tokens.
            seed: makes sampling reproducible without touching the global state.
            stop: token ids that end a row, in place of the model's own.
            stream: return an iterator over the steps; its `result` is the generation.
            original: keep the values before the edits at their site.
            images: images for a vision-language model's processor.
            spans: named stretches of tokens of the prompt.
        """
        from mainspring.engine.generate import Sampling, start

        ends = None if stop is None else (stop,) if isinstance(stop, int) else tuple(stop)
        sampling = Sampling(max_new_tokens, temperature, top_p, top_k, seed, ends)
        prepared = self.prepare(inputs, images=images, spans=spans, side="left")
        kwargs = dict(prepared.kwargs)
        if not isinstance(inputs, Mapping):  # `generate` works these out as it goes, unless they were given
            kwargs = {k: v for k, v in kwargs.items() if k not in ("position_ids", "decoder_input_ids")}
        if "attention_mask" in self._names and "attention_mask" not in kwargs and "input_ids" in kwargs:
            kwargs["attention_mask"] = torch.ones_like(kwargs["input_ids"])
        steps = start(
            self.atlas,
            kwargs,
            prepared.rows,
            as_sites(read),
            as_edits(edits),
            sampling,
            controller=controller,
            tokenizer=self.tokenizer,
            original=original,
            batch=prepared.batch,
        )
        return steps if stream else steps.result

    # ---- images ----

    def image_regions(
        self, inputs: Any, *, images: Any = None, sizes: Sequence[tuple[int, int]] | None = None
    ) -> list[ImageTokens]:
        """For each row of the inputs its image tokens, each with the region of the image that it covers.

        `inputs` and `images` are those of a run. Models whose processor crops images need the original ones: give `images` or their
        `sizes`, (width, height) in the order of the text.
        """
        if self.map is None or not self.map.images:
            raise InputError(f"{type(self.module).__name__} has no image tokens")
        prepared = self.prepare(inputs, images=images)
        sizes = sizes_of(images) if sizes is None and images is not None else sizes
        return image_regions(
            self.map.images, self.config, prepared.kwargs, prepared.rows[""], processor=self.processor, sizes=sizes
        )

    def sweep(
        self,
        inputs: Any,
        edits: Iterable[Changes],
        metric: Any,
        *,
        spans: Mapping[str, Any] | None = None,
        memory: float = 1.0,
        resume: "str | Path | None" = None,
        plain: bool = False,
        progress: Callable[[int, int], None] | bool = False,
    ) -> "Sweep":
        """Run many edit sets on the same inputs and measure each: the numbers of a loop over `run`, planned.

        Args:
            inputs: as for `run`; every edit set is applied to every row.
            edits: the edit sets, one per cell, or a `grid`.
            metric: a `Metric` (which names the sites it looks at, so that no more is computed), a site (its value is the result),
                or a function of a trace.
            spans: named stretches of tokens, as for `run`.
            memory: how much one forward pass may hold, in GiB.
            resume: a file that keeps the results so far; a sweep that finds its own there goes on where it stopped.
            plain: loop over `run` instead.
            progress: called with the cells done and their number; True draws a bar.
        """
        from mainspring.engine.sweeps.progress import drawn
        from mainspring.engine.sweeps.sweep import sweep

        prepared = self.prepare(inputs, spans=spans)
        layout = prepared.rows.get("")
        reason = "it was asked to" if plain else ""
        tokens: list[Tensor] = []
        if prepared.tokens is None or layout is None or set(prepared.kwargs) - {"input_ids", "attention_mask", "position_ids"}:
            reason = reason or "the inputs are more than one stream of text tokens"
            tokens = [torch.zeros(1, dtype=torch.long)] * (prepared.batch or 1)
        else:
            starts = zip(layout.offsets, layout.lengths, strict=True)
            tokens = [prepared.tokens[i, a : a + n] for i, (a, n) in enumerate(starts)]
        places = [{name: where[i] for name, where in (layout.spans if layout else {}).items()} for i in range(len(tokens))]
        with drawn(progress) as report:
            return sweep(
                self.atlas,
                tokens,
                places,
                edits,
                metric,
                lambda changes, sites: self.run(inputs, edits=changes, read=sites, spans=spans, until="end"),
                names=self._names,
                labels=getattr(edits, "labels", ()),
                memory=memory,
                resume=resume,
                plain=reason,
                progress=report,
            )

    # ---- edges ----

    def graph(self) -> "Graph":
        """The graph of this model's heads and MLPs; refused with the reason where the architecture has none."""
        from mainspring.engine.edges.anatomy import anatomy_of

        return anatomy_of(self).graph

    def patch_edges(
        self,
        inputs: Any,
        edges: Any,
        other: Any = None,
        *,
        reference: Any = None,
        over: tuple[str, ...] = ("batch", "pos"),
        read: Reads = None,
        spans: Mapping[str, Any] | None = None,
    ) -> Trace:
        """One forward pass in which `edges` carry what their senders add elsewhere, exactly; all other edges are untouched.

        Args:
            inputs: as for `run`.
            edges: edges of `graph()`, their texts such as "layers.0.head.2 -> layers.1.head.3.q", or texts with wildcards.
            other: where the other values come from: counterfactual inputs or a trace of them, "mean" (of `reference`) or "zero".
            reference: what "mean" averages: inputs or a trace.
            over: average over the batch and the tokens, or over the batch alone.
            read: sites to keep.
            spans: named stretches of tokens.
        """
        from mainspring.engine.edges.patch import patch_edges

        return patch_edges(self, inputs, edges, other, reference=reference, over=over, read=read, spans=spans)

    def attribute_edges(
        self,
        inputs: Any,
        other: Any,
        metric: Any,
        *,
        steps: int = 0,
        by_token: bool = False,
        reference: Any = None,
        over: tuple[str, ...] = ("batch", "pos"),
        spans: Mapping[str, Any] | None = None,
    ) -> "EdgeScores":
        """By how much the metric would change if each edge alone carried its other value, to first order (EAP).

        One forward and one backward pass for all edges. With `steps`, gradients are averaged over that many inputs between the
        two (integrated gradients). `by_token` also keeps what each token contributes. `other`, `reference` and `over` are as for
        `patch_edges`.
        """
        from mainspring.engine.edges.attribution import attribute_edges

        options: dict[str, Any] = {"steps": steps, "by_token": by_token, "reference": reference, "over": over, "spans": spans}
        return attribute_edges(self, inputs, other, metric, **options)

    # ---- what it offers ----

    def can(self, site: Site | str, verb: str = "read") -> Can:
        """Whether `site` can be read, written ("write", or the name of an edit's verb) or differentiated ("grad").

        A refusal has the reason that a request would be refused with.
        """
        if verb not in VERBS:
            raise EditError(f"there is no verb {verb!r}{nearest(verb, VERBS)}; verbs are {', '.join(VERBS)}")
        try:
            site = parse_site(site) if isinstance(site, str) else site
            places = [place for _, place in concrete(self.atlas, site)]
        except SiteRefused as error:
            return Can(False, error.reason)
        except (SiteError, UnmappedModel, ShapeMismatch) as error:
            return Can(False, str(error))
        if verb == "mask" and site.name.split(".")[-1] not in ("scores", "pattern"):
            return Can(False, "only attention scores and patterns can be masked")
        fixed = next((place.read_only for place in places if place.read_only), "")
        return Can(False, fixed) if fixed and verb != "read" else Can(True)

    def sites(self) -> "SiteTable":
        """Every site of this model: its shape, what can be done there, its aliases, and why some are refused."""
        from mainspring.models.listing import list_sites

        return list_sites(self)

    def check(self, inputs: Any = None) -> "Report":
        """Prove the map on this model: the residual adds up, heads sum to attention, gradients equal finite differences, and so on.

        `inputs` are as for `run`, unpadded; without them small random ones are made. Takes some hundred short forward passes,
        is deterministic and leaves nothing on the model. `report.ok` tells whether all that applies holds.
        """
        from mainspring.models.check import check

        return check(self, inputs)

    def __repr__(self) -> str:
        layers = f", {self.n_layers} layers" if self.map is not None else ""
        return f"Model({type(self.module).__name__}, {self.family} map{layers}, {self.dtype}, {self.device})"
