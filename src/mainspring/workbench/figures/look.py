"""A prompt looked at: what each layer would say at each token, where a head attends, how much each head writes, and the next tokens.

    lens[layer, token]  = unembed(final_norm(resid_post[layer, token]))      its likeliest token and probability
    norm[layer, head]   = | head_out[layer, head] | at one token

One forward pass for each layer of the lens, one for each of the others. What it does not do: say what matters. A head may attend
without a cause, write what the next layer cancels, and the lens may be silent about what a layer knows.
"""

from typing import TYPE_CHECKING

from torch import Tensor

from mainspring.errors import InputError, MissingTokenizer
from mainspring.sites import at
from mainspring.views.specs import BarsView, GridView, HeatView, numbers

if TYPE_CHECKING:
    from mainspring.models.model import Model

__all__ = ["LONGEST", "attention", "attention_view", "head_norms", "lens_grid", "next_tokens", "room"]
__all__ += ["tokens_of", "word_of"]

LONGEST = 128
"""Tokens of the longest prompt that is looked at."""


def tokens_of(model: "Model", prompt: str) -> tuple[str, ...]:
    """The tokens of a prompt as texts, as the model is given them."""
    if model.tokenizer is None:
        raise MissingTokenizer("this model has no tokenizer, so it cannot be given a text")
    rows = model.prepare(prompt)
    if rows.tokens is None:
        raise InputError("this model takes more than tokens")
    ids = rows.tokens[0].tolist()
    if (most := _positions(model)) and len(ids) > most:
        raise InputError(f"the prompt has {len(ids)} tokens; this model has positions for {most}")
    if len(ids) > LONGEST:
        raise InputError(f"the prompt has {len(ids)} tokens; {LONGEST} are looked at")
    return tuple(word_of(model, i) for i in ids)


def lens_grid(model: "Model", prompt: str) -> GridView:
    """The likeliest next token after each layer (the last on top) at each token of the prompt, coloured by its probability."""
    names, last = _places(tokens_of(model, prompt)), model.n_layers - 1
    goal = at.layers[last].resid_post
    trace = model.run(prompt, read=[at.layers[:].resid_post, at.logits], until="end")
    rows = [trace[at.logits]]
    for layer in reversed(range(last)):
        early = goal.set(trace[at.layers[layer].resid_post])
        rows.append(model.run(prompt, edits=early, read=at.logits, until="end")[at.logits])
    cells = tuple(tuple(_likeliest(model, position) for position in row[0]) for row in rows)
    return GridView(
        cells=cells,
        x=names,
        y=tuple(f"layer {layer}" for layer in reversed(range(model.n_layers))),
        title="What the model would say after each layer",
        value_title="probability",
    )


def attention(model: "Model", prompt: str, layer: int) -> Tensor:
    """[head, query, key] the attention pattern of a layer."""
    tokens_of(model, prompt)
    site = at.layers[layer].attn.pattern
    return model.run(prompt, read=site)[site][0].float().cpu()


def attention_view(model: "Model", prompt: str, layer: int, head: int) -> HeatView:
    """Where a head attends: a row for each token that looks, a column for each token that is looked at."""
    names, pattern = _places(tokens_of(model, prompt)), attention(model, prompt, layer)
    if not 0 <= head < len(pattern):
        raise InputError(f"layer {layer} has heads 0 to {len(pattern) - 1}, not {head}")
    return HeatView(
        values=numbers(pattern[head]),
        x=names,
        y=names,
        x_title="looked at",
        y_title="from",
        title=f"Attention of layer {layer}, head {head}",
        value_title="attention",
        low=0.0,
        high=1.0,
    )


def head_norms(model: "Model", prompt: str, pos: int = -1) -> HeatView:
    """How much each head writes into the residual stream at one token."""
    tokens_of(model, prompt)
    sites = [at.layers[layer].attn.head_out(pos=pos) for layer in range(model.n_layers)]
    sites = [site for site in sites if model.can(site)]
    if not sites:
        raise InputError("this model offers no output of single heads")
    trace = model.run(prompt, read=sites)
    norms = [trace[site][0].float().norm(dim=-1).tolist() for site in sites]
    width = max(map(len, norms))
    return HeatView(
        values=tuple(tuple(row) + (None,) * (width - len(row)) for row in norms),
        x=tuple(map(str, range(width))),
        y=tuple(str(site.layers) for site in sites),
        x_title="head",
        y_title="layer",
        title="How much each head writes at the last token" if pos == -1 else f"How much each head writes at token {pos}",
        value_title="norm",
    )


def next_tokens(model: "Model", prompt: str, k: int = 10) -> BarsView:
    """The likeliest next tokens."""
    tokens_of(model, prompt)
    chances = model.run(prompt, read=at.logits(pos=-1), until="end")[at.logits(pos=-1)][0].float().softmax(-1)
    best = chances.topk(min(k, len(chances)))
    words = tuple(word_of(model, i) for i in best.indices.tolist())
    return BarsView(names=words, values=tuple(best.values.tolist()), title="Likeliest next tokens", y_title="probability")


def word_of(model: "Model", token: int) -> str:
    """The text of a token id; its number where there is no tokenizer."""
    return str(token) if model.tokenizer is None else model.tokenizer.decode([token])


def room(model: "Model", prompt: str) -> int:
    """How many tokens the model can write behind a prompt; at least one, and its last word may be beyond its positions."""
    most, length = _positions(model), len(tokens_of(model, prompt))
    return most - length + 1 if most else LONGEST


def _positions(model: "Model") -> int | None:
    """How many tokens the model can tell apart by their place; None where it does not say."""
    return getattr(getattr(model.config, "text_config", model.config), "max_position_embeddings", None)


def _places(tokens: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f"{i} {token.strip() or token}" for i, token in enumerate(tokens))


def _likeliest(model: "Model", logits: Tensor) -> tuple[str, float]:
    chances = logits.float().softmax(-1)
    best = int(chances.argmax())
    return word_of(model, best), float(chances[best])
