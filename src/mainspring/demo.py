"""The demonstration: a model whose mechanism we planted, read, taken apart and changed in a few seconds."""

from rich.console import Console
from rich.table import Table

__all__ = ["show"]


def show() -> None:
    """Plant a recall circuit in a stock GPT-2, find it again by patching, and switch it off."""
    import mainspring as ms
    from mainspring import at
    from mainspring.engine.sweeps.grid import grid
    from mainspring.measure.metrics import logit_difference
    from mainspring.organisms import plant, recipe

    out = Console(highlight=False)
    shipped = recipe("recall")
    planted = plant(shipped.program(), host="gpt2", disguise=shipped.disguise, seed=0)
    model = ms.wrap(planted.module, tokenizer=planted.tokenizer)
    pair = planted.program.pairs("found", 1, seed=3)[0]
    clean, other = (" ".join(draw.tokens) for draw in (pair.clean, pair.other))

    out.rule("A stock GPT-2 with a program planted in its weights")
    out.print(f"{model}\n\nclean           {clean}\ncounterfactual  {other}\n")
    trace = model.run(clean, read=[at.layers[:].attn.pattern, at.layers[:].attn.z])
    right, wrong = (int(model.run(text).logits[0, -1].argmax()) for text in (clean, other))
    name = model.tokenizer.decode
    out.print(
        f"it answers [bold]{name([right])}[/] to the first and [bold]{name([wrong])}[/] to the second: it looks up what follows.\n"
    )

    heads = planted.module.config.n_head
    cells = grid(at.layers[:].attn.z, lambda site: site.patch(trace), layers=model.n_layers, head=heads)
    sweep = model.sweep(other, cells, logit_difference(right, wrong))
    effect = (sweep.grid[..., 0] - sweep.base).abs()
    truth = {(node.layer, node.head): node.variable for node in planted.truth.nodes if node.head is not None}
    table = Table(
        "",
        *(f"head {h}" for h in range(heads)),
        title="Patch each head from the clean run: change of the answer's logit difference",
    )
    for layer in range(model.n_layers):
        row = []
        for head in range(heads):
            planted_here = truth.get((layer, head))
            shade = "bold green" if effect[layer, head] > 0.5 * effect.max() else "dim"
            row.append(f"[{shade}]{effect[layer, head]:8.2f}[/]" + (f" [cyan]{planted_here}[/]" if planted_here else ""))
        table.add_row(f"layer {layer}", *row)
    out.print(table)
    out.print("In blue what the program put there. Found by patching, known by construction.\n")

    layer, head = divmod(int(effect.argmax()), heads)
    seen = trace[at.layers[layer].attn.pattern(head=head, query=-1)][0]
    words = pair.clean.tokens
    out.print(
        f"layer {layer}, head {head} looks from the last token at: "
        + " ".join(
            f"[bold reverse]{word}[/]" if weight > 0.5 else f"[dim]{word}[/]"
            for word, weight in zip(words, seen.tolist(), strict=False)
        )
    )
    off = model.run(clean, edits=at.layers[layer].attn.z(head=head).ablate("zero"))
    moved = model.run(other, edits=at.layers[layer].attn.z(head=head, pos=-1).patch(trace))
    out.print(f"switched off, the model answers [bold]{name([int(off.logits[0, -1].argmax())])}[/] instead of {name([right])};")
    out.print(
        f"put into the other text, it makes the model answer [bold]{name([int(moved.logits[0, -1].argmax())])}[/] there too.\n"
    )
    out.print(f"[dim]{sweep.plan}[/]")
