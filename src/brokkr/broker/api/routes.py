"""Every path, method and handler, on one screen."""

from collections.abc import Callable
from functools import partial
from typing import Any, Final, TypeAlias

from fastapi import Depends, FastAPI, Request
from fastapi.security import HTTPBearer
from starlette.routing import Match
from starlette.types import Receive, Scope, Send

from brokkr.broker.api import agents, claims, docs, events, explain, generators, health, keys, work
from brokkr.broker.api.auth import authenticate
from brokkr.broker.api.door import door_for
from brokkr.broker.db.keys import Role
from brokkr.wire.bodies import WorkBody
from brokkr.wire.problem import CODES, MEDIA_TYPE
from brokkr.work.errors import NoSuchEndpoint

_MAX_NAMED: Final = 200

ADMIN, AGENT, GENERATOR, VIEWER = Role.ADMIN, Role.AGENT, Role.GENERATOR, Role.VIEWER

Route: TypeAlias = tuple[str, str, Callable[..., Any], int, set[Role]]
"""Method, path, handler, the status of success, and whose key opens it."""

WORK: Final[list[Route]] = [
    ("POST", "/work", work.submit_work, 201, {ADMIN, GENERATOR}),
    ("POST", "/work/batch", work.submit_some_work, 200, {ADMIN, GENERATOR}),
    ("GET", "/work", work.list_work, 200, {ADMIN, VIEWER, GENERATOR}),
    ("GET", "/work/{work_id}", work.get_work, 200, {ADMIN, VIEWER, GENERATOR, AGENT}),
    ("DELETE", "/work/{work_id}", work.cancel_work, 200, {ADMIN, GENERATOR}),
    ("GET", "/work/{work_id}/events", events.list_events, 200, {ADMIN, VIEWER, GENERATOR, AGENT}),
    ("GET", "/work/{work_id}/explain", explain.explain_work, 200, {ADMIN, VIEWER, GENERATOR}),
    ("POST", "/work/{work_id}/release", work.release_work, 200, {ADMIN, AGENT}),
    ("POST", "/work/{work_id}/requeue", work.requeue_work, 200, {ADMIN}),
    ("POST", "/work/{work_id}/claim", claims.claim_work, 200, {AGENT}),
    ("POST", "/work/{work_id}/progress", claims.report_progress, 204, {AGENT}),
    ("POST", "/work/{work_id}/complete", claims.complete_work, 200, {AGENT}),
    ("GET", "/agents/{ref}/work/pending", claims.list_pending_work, 200, {AGENT}),
    ("POST", "/agents/{ref}/work/claim", claims.claim_some_work, 200, {AGENT}),
    ("POST", "/agents/{ref}/work/complete", claims.complete_some_work, 200, {AGENT}),
]
AGENTS: Final[list[Route]] = [
    ("POST", "/agents", agents.register_agent, 201, {ADMIN}),
    ("GET", "/agents", agents.list_agents, 200, {ADMIN, VIEWER}),
    ("GET", "/agents/{ref}", agents.get_agent, 200, {ADMIN, VIEWER, AGENT}),
    ("PATCH", "/agents/{ref}", agents.relabel_agent, 200, {ADMIN}),
    ("DELETE", "/agents/{ref}", agents.delete_agent, 204, {ADMIN}),
    ("POST", "/agents/{ref}/drain", agents.drain_agent, 200, {ADMIN}),
    ("POST", "/agents/{ref}/undrain", agents.undrain_agent, 200, {ADMIN}),
    ("POST", "/agents/{ref}/rotate-key", agents.rotate_agent_key, 200, {ADMIN}),
    ("POST", "/agents/{ref}/heartbeat", agents.heartbeat, 200, {AGENT}),
]
TENANTS: Final[list[Route]] = [
    ("POST", "/generators", generators.create_generator, 201, {ADMIN}),
    ("GET", "/generators", generators.list_generators, 200, {ADMIN, VIEWER}),
    ("GET", "/generators/{ref}", generators.get_generator, 200, {ADMIN, VIEWER}),
    ("PATCH", "/generators/{ref}", generators.limit_generator, 200, {ADMIN}),
    ("DELETE", "/generators/{ref}", generators.delete_generator, 204, {ADMIN}),
    ("POST", "/generators/{ref}/rotate-key", generators.rotate_generator_key, 200, {ADMIN}),
    ("POST", "/keys", keys.create_key, 201, {ADMIN}),
    ("GET", "/keys", keys.list_keys, 200, {ADMIN}),
    ("DELETE", "/keys/{short_id}", keys.revoke_key, 204, {ADMIN}),
]
_OPEN: list[tuple[str, str, Callable[..., Any]]] = [
    ("GET", "/healthz", health.healthz),
    ("GET", "/readyz", health.readyz),
    ("GET", "/metrics", health.metrics),
    ("GET", "/docs", docs.show_docs),
]


_PROBLEM: dict[str, Any] = {
    "description": "A problem document (RFC 9457); `code` says which problem.",
    "content": {
        MEDIA_TYPE: {
            "schema": {
                "type": "object",
                "required": ["type", "title", "status", "code", "detail"],
                "properties": {
                    "type": {"type": "string"},
                    "title": {"type": "string"},
                    "status": {"type": "integer"},
                    "code": {"type": "string", "x-extensible-enum": sorted(CODES)},
                    "family": {"type": "array", "items": {"type": "string"}},
                    "detail": {"type": "string"},
                    "field": {"type": "string"},
                    "work_id": {"type": "string"},
                    "broker": {"type": "string"},
                    "request_id": {"type": "string"},
                },
            }
        }
    },
}
_ALSO: Final[dict[Callable[..., Any], dict[int | str, dict[str, Any]]]] = {
    work.submit_work: {
        200: {"model": WorkBody, "description": "Its idempotency key is known: this is that Work."}
    },
    work.cancel_work: {
        202: {"model": WorkBody, "description": "It is claimed: its agent was told to stop it."}
    },
    events.list_events: events.ANSWERS,
}
"""What a route answers that is neither its success nor a problem."""
_YAML_TOO = {
    "requestBody": {
        "content": {
            "application/yaml": {"schema": {"$ref": "#/components/schemas/SubmitWork"}},
        }
    }
}


def add_routes(app: FastAPI) -> None:
    """Add all routes; those of the API stand behind the door, whatever they do."""
    # The bearer scheme is for the documentation: the door has looked at the key before.
    bearer = Depends(HTTPBearer(auto_error=False, scheme_name="API key"))
    for tag, routes in (("work", WORK), ("agents", AGENTS), ("tenants", TENANTS)):
        for method, path, handler, status, roles in routes:
            extra = _YAML_TOO if handler is work.submit_work else {}
            # Not by a router of their own: each request would be looked up in both.
            app.router.add_api_route(
                f"/api/v1{path}",
                handler,
                methods=[method],
                status_code=status,
                tags=[tag],
                dependencies=[bearer],
                responses={"4XX": _PROBLEM, "5XX": _PROBLEM, **_ALSO.get(handler, {})},
                openapi_extra={**extra, "x-roles": sorted(roles)},
                route_class_override=door_for(*roles),
            )
    for method, path, handler in _OPEN:
        app.add_api_route(path, handler, methods=[method], include_in_schema=False)
    # A redirect would lead to whatever host the request names.
    app.router.redirect_slashes = False
    app.router.default = partial(_refuse_path, app)


async def _refuse_path(app: FastAPI, scope: Scope, receive: Receive, send: Send) -> None:
    """
    Refuse a path that there is not; what the API has at all, a stranger may read in its pages.

    Raises:
        NoSuchEndpoint: Always, for who has a key; with the path that may have been meant.
    """
    request, path = Request(scope, receive, send), scope["path"]
    if path.startswith("/api/"):
        request.state.caller = await authenticate(request)
    meant = path.rstrip("/")
    found = any(each.matches({**scope, "path": meant})[0] == Match.FULL for each in app.routes)
    hint = f"did you mean {meant}?" if meant != path and found else "see /docs for what it has"
    what = f"{request.method} {path}"[:_MAX_NAMED]
    raise NoSuchEndpoint(f"this broker has no {what}: {hint[: _MAX_NAMED + 20]}")
