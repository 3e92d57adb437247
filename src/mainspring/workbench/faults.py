"""Every refusal in one form, `{"error": what is wrong, "fix": what to do, "kind": the error's name}`, with its HTTP status."""

import logging
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from mainspring.errors import (
    LoadError,
    MainspringError,
    MissingExtra,
    MissingTokenizer,
    PositionError,
    SiteError,
    UnmappedModel,
)

__all__ = ["NotThere", "describe", "refusal", "register"]

_log = logging.getLogger(__name__)


class NotThere(MainspringError, LookupError):
    """Something that the page asked for and the server does not hold, such as an image sent before a restart."""


_FIXES: tuple[tuple[type[Exception], int, str], ...] = (
    (NotThere, 404, "Load the page again; after a restart of the server, images have to be sent again."),
    (MissingExtra, 501, "Install the extra that the message names and start the workbench again."),
    (LoadError, 404, "Give a folder with config.json and *.safetensors, a hub id, or organism:NAME as on the Organisms page."),
    (MissingTokenizer, 400, "Choose a model with a tokenizer, or save one into its folder."),
    (UnmappedModel, 400, "This page needs a mapped decoder; the Models page lists what the model offers."),
    (PositionError, 400, "Choose a token that the text has."),
    (SiteError, 400, "The Models page lists every site of the model, and why some are refused."),
    (MainspringError, 400, ""),  # which say themselves what to do
)


def describe(error: BaseException) -> tuple[int, dict[str, str]]:
    """The status and the body for an error. What is no error of ours is logged, and told without its inside."""
    if isinstance(error, MemoryError) or "out of memory" in str(error).lower():
        return 507, _body("There is not enough memory for this.", "Use a shorter text or a smaller model.", error)
    for kind, status, fix in _FIXES:
        if isinstance(error, kind):
            return status, _body(" ".join(str(error).split()), fix, error)
    _log.error("the workbench failed", exc_info=error)
    return 500, _body(f"This failed inside mainspring: {type(error).__name__}.", "The server's terminal has the details.", error)


def refusal(status: int, error: str, fix: str, kind: str = "Refused") -> JSONResponse:
    """A response of the same form for what is no exception."""
    return JSONResponse({"error": error, "fix": fix, "kind": kind}, status)


def register(app: FastAPI) -> None:
    """Let an application answer every error in this form."""

    async def of_ours(_: Request, error: Exception) -> JSONResponse:
        status, body = describe(error)
        return JSONResponse(body, status)

    async def of_fields(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        wrong: list[dict[str, Any]] = list(error.errors())
        said = "; ".join(f"{'.'.join(map(str, w['loc'][1:])) or 'the body'}: {w['msg']}" for w in wrong[:3])
        return refusal(422, said, "Send the fields that the page sends.", "Malformed")

    async def of_paths(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        return refusal(error.status_code, str(error.detail), "The pages are listed at the top of the workbench.", "Refused")

    app.add_exception_handler(RequestValidationError, of_fields)
    app.add_exception_handler(HTTPException, of_paths)
    app.add_exception_handler(Exception, of_ours)
    app.add_exception_handler(MainspringError, of_ours)


def _body(error: str, fix: str, kind: BaseException) -> dict[str, str]:
    return {"error": error, "fix": fix, "kind": type(kind).__name__}
