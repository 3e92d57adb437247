"""One forward pass: place hooks, run, take them off, and hand back a trace."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from mainspring.edits import Edit
from mainspring.engine.attention import routed
from mainspring.engine.flow import Flow, Stop
from mainspring.engine.plan import Atlas, Plan, attention_configs
from mainspring.errors import EditError, EditNeverFired, InputError, SiteRefused
from mainspring.rows import Rows
from mainspring.sites import Site, parse_site
from mainspring.trace import Trace, Values

__all__ = ["check_fired", "execute", "scalar_of"]

GradOf = Callable[[Trace], Tensor] | Site | str


def execute(
    atlas: Atlas,
    kwargs: Mapping[str, Any],
    plan: Plan,
    rows: Mapping[str, Rows],
    *,
    batch: int | None = None,
    original: bool = False,
    grad_of: GradOf | None = None,
    attached: bool = False,
    tokens: Tensor | None = None,
    text: tuple[str, ...] | None = None,
) -> Trace:
    """Run the module once under a plan.

    `grad_of` maps the trace to a scalar (or one per row, which are summed); its gradient at every read is in `trace.grad`.
    `attached` keeps values in the autograd graph. Parameters never receive gradients from here.
    """
    if grad_of is not None:
        for point in plan.points:
            if point.reads and point.place.read_only:
                reason = point.place.read_only
                raise SiteRefused(f"{point.reads[0]} can be read but has no gradient: {reason}", reason)
    graph_from = _lowest(atlas, plan) if grad_of is not None and not attached else None
    flow = Flow(
        plan.dealt,
        rows,
        n_edits=len(plan.edits),
        batch=batch,
        original=original,
        gradients=grad_of is not None,
        attached=attached or grad_of is not None,
        graph_from=graph_from,
        stop_after=plan.stop,
        windows=plan.windows,
    )
    output: Any = None
    with flow.attach((attached or grad_of is not None) and graph_from is None):
        try:
            if flow.attention:
                with routed(attention_configs(plan.points)):
                    output = atlas.module(**kwargs)
            else:
                output = atlas.module(**kwargs)
        except Stop:
            pass
    values: dict[Site, Tensor] = {}
    depths: dict[str, int] = {}
    if flow.kept:
        values = {site: kept[-1] for site, kept in flow.kept.items()}
        depths = {stack: atlas.depth(stack) for stack in {site.stack for site in values if site.layers is not None}}
    if 0 in flow.fired:
        check_fired(plan, flow.fired)
    fired: dict[Edit, int] = dict(zip(plan.edits, flow.fired, strict=True))
    if len(fired) < len(plan.edits):
        fired = dict.fromkeys(plan.edits, 0)
        for edit, count in zip(plan.edits, flow.fired, strict=True):
            fired[edit] += count  # an edit given twice is one key
    trace = Trace(
        Values(values, rows, depths),
        fired=fired,
        output=output,
        tokens=None if tokens is None else tokens.clone(),
        stopped_after=plan.stopped_after if flow.stopped else None,
        text=text,
    )
    return trace if grad_of is None else _with_gradients(trace, flow, grad_of, attached)


def _lowest(atlas: Atlas, plan: Plan) -> nn.Module | None:
    """The first layer that a gradient reaches down to: what runs before it needs no graph. None: keep the graph of everything."""
    depths = [site.layers if site.stack == "" else None for site in plan.reads]
    known = [depth for depth in depths if isinstance(depth, int)]
    return atlas.layer("", min(known)) if known and len(known) == len(depths) else None


def check_fired(plan: Plan, fired: list[int]) -> None:
    """An edit that touched nothing is an error, not silence."""
    for edit, count in zip(plan.edits, fired, strict=True):
        if count == 0:
            raise EditNeverFired(
                f"{edit} never fired: its place was not reached, or its positions select no token of these inputs"
            )


def scalar_of(trace: Trace, grad_of: GradOf) -> Tensor:
    """The scalar to differentiate."""
    if isinstance(grad_of, Site | str):
        site = parse_site(grad_of) if isinstance(grad_of, str) else grad_of
        return trace[site].sum()
    value = grad_of(trace)
    if not isinstance(value, Tensor):
        raise EditError(f"grad_of must return a tensor with one number (or one per row), not {type(value).__name__}")
    if value.ndim > 1:
        raise EditError(f"grad_of must return one number or one per row; it returned shape {tuple(value.shape)}")
    return value.sum()


def _with_gradients(trace: Trace, flow: Flow, grad_of: GradOf, attached: bool) -> Trace:
    with torch.enable_grad():
        metric = scalar_of(trace, grad_of)
    if not flow.tracked:
        raise InputError("grad_of needs sites to take gradients at: name them in read=")
    sites, tensors = list(flow.tracked), [tensor for tensor, _ in flow.tracked.values()]
    if not metric.requires_grad:
        raise EditError("grad_of returned a number that depends on none of the sites in read=")
    found = torch.autograd.grad(metric, tensors, retain_graph=attached, create_graph=False, allow_unused=True)
    # a site that the metric does not depend on has gradient zero
    gradients: dict[Site, Tensor] = {}
    given: set[int] = set()
    for site, t, g in zip(sites, tensors, found, strict=True):
        g = torch.zeros_like(t) if g is None else g
        window = flow.tracked[site][1]
        # autograd may hand out one tensor for several sites, or a view
        own = window.whole and g.data_ptr() not in given and g._base is None and g.is_contiguous() and not g.requires_grad
        gradients[site] = g if own else window.get(g).detach().clone()
        given.add(g.data_ptr())
    read, output = trace.read, trace.output
    if not attached:
        read = Values(flow.snapshots, read.rows, read.n_layers)
        output = _detached(output)
    grad = Values(gradients, read.rows, read.n_layers, "gradient")
    return Trace(
        read, grad, trace.fired, output, trace.tokens, trace.stopped_after, trace.text, metric if attached else metric.detach()
    )


def _detached(output: Any) -> Any:
    """The model's output without its graph, so that a kept trace does not keep activations alive."""
    if isinstance(output, Tensor):
        return output.detach()
    if isinstance(output, Mapping):
        for key, value in list(output.items()):
            output[key] = _detached(value)  # type: ignore[index]
        return output
    if isinstance(output, tuple) and not hasattr(output, "_fields"):
        return tuple(_detached(x) for x in output)
    return output
