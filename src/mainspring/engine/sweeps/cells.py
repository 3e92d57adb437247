"""The cells of a sweep: for each edit set, the first layer and the first token that it changes.

A causal model computes the same below that layer and before that token as without the edit, so nothing there needs to be computed
again. `fork` counts layers; the number of layers itself means "after the last layer".
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from torch import Tensor

from mainspring.edits import Edit, Edits
from mainspring.engine.plan import Atlas, concrete
from mainspring.rows import Rows
from mainspring.sites import Site
from mainspring.trace import Trace

__all__ = ["Cell", "locate", "of_row"]


@dataclass(frozen=True, eq=False)
class Cell:
    """One edit set on one input: where it first changes the run, or why it must be run plainly."""

    index: int
    edits: Edits
    fork: int = 0
    first: int = 0
    plain: str = ""


def locate(atlas: Atlas, index: int, edits: Edits, rows: Mapping[str, Rows], seen: frozenset[Site] = frozenset()) -> Cell:
    """Place one edit set on an input of one row. `seen` are the bare sites that the metric reads, which must see the edits."""
    depth, forks, firsts, moved = atlas.depth(""), [], [], []
    for edit in edits:
        if reason := _crosses_rows(edit):
            return Cell(index, edits, plain=reason)
        for site, place in concrete(atlas, edit.site):
            if site.stack or not (isinstance(site.layers, int) or site.name == "embed"):
                return Cell(index, edits, plain=f"{site} lies outside the layers")
            layer = site.layers if isinstance(site.layers, int) else 0
            if site.name == "resid_post" and site.bare not in seen:
                # what leaves a layer enters the next, so the layer itself need not be run
                layer += 1
                if layer < depth:
                    entry = replace(site, name="resid_pre", layers=layer)
                    edit_here = _moved(edit, site, entry)
                    if edit_here is None:
                        return Cell(index, edits, plain=f"{edit} cannot be moved to the next layer's input")
                    moved.append(edit_here)
                else:
                    moved.append(edit.at(site))
            else:
                moved.append(edit.at(site))
            forks.append(layer)
            firsts.append(_first_token(site, place.axes, rows))
    return Cell(index, Edits(moved), min(forks), min(firsts)) if forks else Cell(index, edits, plain="it has no edits")


def _moved(edit: Edit, site: Site, entry: Site) -> Edit | None:
    """The same change at the next layer's input; a patch still takes its value from the site that was named."""
    if edit.op == "patch" and edit["source"] is not None and edit["site"] is None:
        return Edit(entry, "patch", (*edit.params, ("site", site)))
    if edit.op == "ablate" and edit["of"] is not None:
        return None
    return edit.at(entry)


def _first_token(site: Site, axes: tuple[str, ...], rows: Mapping[str, Rows]) -> int:
    layout, chosen = rows[""], dict(site.select)
    index = chosen.get("pos", chosen.get("query"))
    if index is None:
        return 0
    columns = layout.positions(0, index, 0, layout.width)
    return min(columns) if columns else 0


def _crosses_rows(edit: Edit) -> str:
    if any(key == "row" for key, _ in edit.site.select):
        return f"{edit} picks rows of the batch"
    if edit.op == "ablate" and edit["kind"] != "zero" and edit["of"] is None:
        return f"{edit} looks at other rows of the batch"
    if edit.op == "patch" and edit["source"] is None and edit["row"] is not None:
        return f"{edit} looks at other rows of the batch"
    if edit.op == "ablate" and edit["kind"] == "resample":
        return f"{edit} draws a row for each row of the batch"
    return ""


def of_row(edits: Edits, row: int, batch: int) -> Edits:
    """The edits as they concern one row of a batch that is run alone."""
    return edits if batch == 1 else Edits(_one(edit, row, batch) for edit in edits)


def _one(edit: Edit, row: int, batch: int) -> Edit:
    site, params = edit.site.of_row(row), []
    for key, value in edit.params:
        if isinstance(value, Trace) and key == "source" and value.rows.batch == batch and edit["row"] is None:
            value = value.row(row)
        elif isinstance(value, Tensor) and key in ("value", "where"):
            rank = len(site.axes or ()) - sum(isinstance(i, int) for _, i in site.select)
            if value.ndim == rank and value.shape[0] == batch:
                value = value[row : row + 1]
        params.append((key, value))
    return Edit(site, edit.op, tuple(params))
