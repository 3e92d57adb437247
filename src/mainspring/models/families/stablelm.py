"""StableLM: the layout of Llama with layer norm; attention and MLP in parallel in some checkpoints."""

from typing import Any

from mainspring.models.maps import Map, Stack, attention, gated_mlp, parallel_residual, separate_qkv, sequential_residual


def _stack(config: Any) -> Stack:
    parallel = config.use_parallel_residual
    stream = parallel_residual() if parallel else sequential_residual("post_attention_layernorm")
    return Stack(tables=(stream, attention(), separate_qkv(), gated_mlp()), residual="parallel" if parallel else "pre-norm")


MAPS = (Map("stablelm", ("stablelm",), _stack),)
