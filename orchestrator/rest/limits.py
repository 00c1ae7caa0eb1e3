"""Caps on what a request may carry."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from anyio import fail_after
from fastapi import HTTPException, Request, Response
from fastapi.routing import APIRoute
from starlette.types import Message, Receive

MAX_BODY_BYTES = 1024 * 1024
"""Of every request but an upload, which has the stream's own cap."""


STALL_S = 60
"""A body of which nothing comes for so long is given up."""


class LimitedRoute(APIRoute):
    """A route whose body is refused as soon as it is too large."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The route's handler behind a counting receiver."""
        handler = super().get_route_handler()

        async def limited(request: Request) -> Response:
            return await handler(Request(request.scope, _counted(request.receive)))

        return limited


def _counted(receive: Receive) -> Receive:
    taken = 0

    async def counted() -> Message:
        nonlocal taken
        try:
            with fail_after(STALL_S):
                message = await receive()
        except TimeoutError as error:
            raise HTTPException(408, f"nothing came for {STALL_S} s") from error
        taken += len(message.get("body", b""))
        if taken > MAX_BODY_BYTES:
            raise HTTPException(413, f"the body is larger than {MAX_BODY_BYTES} bytes")
        return message

    return counted
