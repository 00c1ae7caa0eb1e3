"""What handlers ask for: the application, and who is calling."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Path, Query, Request

from orchestrator.app import App
from orchestrator.auth import Caller
from orchestrator.errors import Forbidden
from orchestrator.service.names import VersionName, parse_version_name

ROLE = "x-role"
"""Key of a route's OpenAPI entry that names the role it needs; a route without one needs an admin."""


def the_app(request: Request) -> App:
    """The daemon that this application serves."""
    found = request.app.state.rekindle
    assert isinstance(found, App)
    return found


def actor(request: Request) -> str:
    """The caller's name, as it is written into events."""
    return f"token:{request.scope['caller'].name}"


def check_role(request: Request, needed: str) -> None:
    """Refuse a caller whose role is too small.

    Raises:
        Forbidden: a greater role is needed.
    """
    caller = request.scope.get("caller")
    if not isinstance(caller, Caller) or not caller.may(needed):
        raise Forbidden(
            f"this needs a token with role {needed}; `rekindle token create NAME --role {needed}` makes one"
        )


def authorise(request: Request) -> None:
    """Refuse a caller whose role is too small for the very route object that was matched.

    Raises:
        Forbidden: a greater role is needed.
    """
    extra = getattr(request.scope.get("route"), "openapi_extra", None) or {}
    needed = extra.get(ROLE, "admin")
    if needed != "nobody":
        check_role(request, needed)


def version_name(
    name: Annotated[str, Path(description="name of the stream")],
    version: Annotated[str, Path(pattern=r"^(live|[1-9][0-9]{0,8})$", description="a number, or live")],
) -> VersionName:
    """The version that the path names."""
    return parse_version_name(f"{name}@live" if version == "live" else f"{name}/{version}")


Rekindle = Annotated[App, Depends(the_app)]
Actor = Annotated[str, Depends(actor)]
Named = Annotated[VersionName, Depends(version_name)]
RowId = Annotated[int, Path(ge=1, le=2**62)]
Limit = Annotated[int, Query(ge=1, le=1000, description="rows in the answer")]
Before = Annotated[int | None, Query(ge=1, le=2**62, description="only rows older than this id or number")]
