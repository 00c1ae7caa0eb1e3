"""The REST face: FastAPI under ``/api/v1``, described by OpenAPI. Handlers only call the service layer."""

from __future__ import annotations

from collections.abc import Sequence

import structlog
from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException as StarletteHTTPException

from orchestrator.app import App
from orchestrator.auth import Guard
from orchestrator.errors import RekindleError
from orchestrator.rest import routes
from orchestrator.rest.depends import ROLE, authorise
from orchestrator.rest.limits import LimitedRoute
from orchestrator.service.translate import ours
from storage.errors import StorageError
from strategies.errors import StrategyError

PREFIX = "/api/v1"
CODES = {404: "not_found", 405: "method_not_allowed", 413: "too_large", 422: "bad_input"}
log = structlog.get_logger()


def create_app(app: App, *, allowed_hosts: Sequence[str] = ()) -> FastAPI:
    """The application that serves one daemon; ``allowed_hosts`` are names it answers to beside loopback."""
    api = FastAPI(
        title="Rekindle",
        openapi_url=f"{PREFIX}/openapi.json",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        dependencies=[Depends(authorise)],
    )
    api.state.rekindle = app
    _add(api, routes.OPEN)
    _add(api, routes.METRICS)
    _add(api, routes.UPLOAD, prefix=PREFIX, kind=APIRoute)
    for route in routes.ROUTES:
        _add(api, route, prefix=PREFIX)
    _handle_errors(api)
    api.add_middleware(Guard, rekindle=app, allowed_hosts=allowed_hosts)
    return api


def _add(api: FastAPI, route: routes.Route, *, prefix: str = "", kind: type[APIRoute] = LimitedRoute) -> None:
    api.router.route_class = kind
    api.add_api_route(
        prefix + route.path,
        route.handler,
        methods=[route.method],
        status_code=route.status,
        openapi_extra={ROLE: route.role},
    )


def _handle_errors(api: FastAPI) -> None:
    @api.exception_handler(RekindleError)
    def _known(_request: Request, error: RekindleError) -> JSONResponse:
        return _answer(error.http_status, error.code, error.message)

    @api.exception_handler(StorageError)
    @api.exception_handler(StrategyError)
    def _theirs(request: Request, error: Exception) -> JSONResponse:
        return _known(request, ours(error))

    @api.exception_handler(RequestValidationError)
    def _invalid(_request: Request, error: RequestValidationError) -> JSONResponse:
        return _answer(422, "bad_input", _first(error))

    @api.exception_handler(StarletteHTTPException)
    def _http(_request: Request, error: HTTPException) -> JSONResponse:
        return _answer(error.status_code, CODES.get(error.status_code, "error"), str(error.detail))

    @api.exception_handler(Exception)
    def _unknown(request: Request, error: Exception) -> JSONResponse:
        log.error("a request failed", action="request_failed", path=request.url.path, exc_info=error)
        return _answer(500, "error", "the daemon failed at this request; HOME/logs/daemon.log says why")


def _first(error: RequestValidationError) -> str:
    detail = error.errors()[0]
    where = ".".join(str(part) for part in detail["loc"] if part != "body")
    return f"{where or 'body'}: {detail['msg']}"


def _answer(status: int, code: str, message: str) -> JSONResponse:
    return JSONResponse({"error": {"code": code, "message": message}}, status_code=status)
