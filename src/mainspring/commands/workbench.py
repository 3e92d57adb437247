"""`mainspring workbench`: the page in the browser."""

import os
from typing import Annotated

import typer

__all__ = ["workbench"]


def workbench(
    models: Annotated[
        list[str] | None, typer.Argument(metavar="[MODEL]...", help="local folders, hub ids, organism:NAME")
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one")] = 7070,
    host: Annotated[str, typer.Option(help="other machines reach it only where this is not 127.0.0.1")] = "127.0.0.1",
    browser: Annotated[bool, typer.Option(help="open the page in the browser")] = True,
    check: Annotated[
        bool, typer.Option("--check", help="start, render every page once, stop; exits with 1 where one fails")
    ] = False,
) -> None:
    """Open the workbench: gaze, lens, patching, steering, organisms, studies and models in the browser."""
    # Read when torch loads its threads. Ones that spin while they wait take the cores from the browser that shows what they compute:
    # on a busy machine of two cores that is the difference between 5 and 400 ms for a word.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        import uvicorn  # noqa: F401

        from mainspring.workbench.serve import check as checked
        from mainspring.workbench.serve import serve
    except ImportError as error:
        from mainspring.errors import MissingExtra

        raise MissingExtra(f"the workbench needs {error.name}: pip install 'mainspring[serve]'") from None
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    if check:
        if not checked(models or (), typer.echo):
            raise typer.Exit(1)
        return
    serve(models or (), host, port, browser, typer.echo)
