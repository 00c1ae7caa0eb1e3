"""What can go wrong, as one line that says what is wrong and what to do, with its exit code and HTTP status."""

# ruff: noqa: N818 - the names say what went wrong; the base class already says that they are errors

from __future__ import annotations

from typing import ClassVar


class RekindleError(Exception):
    """Base of every error that a user may see; the message is one line."""

    code: ClassVar[str] = "error"
    exit_code: ClassVar[int] = 1
    http_status: ClassVar[int] = 500

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class NotFound(RekindleError):
    """The named stream, version, batch, job or decision does not exist."""

    code = "not_found"
    http_status = 404


class Conflict(RekindleError):
    """The request is legal, but not in the present state."""

    code = "conflict"
    http_status = 409


class BadInput(RekindleError):
    """The request itself is wrong; nothing was done."""

    code = "bad_input"
    exit_code = 2
    http_status = 422


class GateRefused(RekindleError):
    """The gate refused the candidate, or could not tell."""

    code = "gate_refused"
    exit_code = 3
    http_status = 409


class Unavailable(RekindleError):
    """The daemon, or something it needs, cannot be reached now."""

    code = "unavailable"
    http_status = 503


class Unauthorised(RekindleError):
    """No token, or one that is unknown, revoked or expired."""

    code = "unauthorised"
    http_status = 401


class Forbidden(RekindleError):
    """The token's role, or the request's Host or Origin, does not allow this."""

    code = "forbidden"
    http_status = 403


class TooLarge(RekindleError):
    """The body of the request is larger than the daemon takes."""

    code = "too_large"
    http_status = 413
