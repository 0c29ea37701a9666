"""Every path, method and handler, on one screen."""

from collections.abc import Callable
from typing import Any

from fastapi import APIRouter, Depends, FastAPI
from fastapi.security import HTTPBearer

from brokkr.broker.api import agents, claims, docs, health, work
from brokkr.broker.api.door import Door
from brokkr.wire.problem import MEDIA_TYPE

_WORK: list[tuple[str, str, Callable[..., Any], int]] = [
    ("POST", "/work", work.submit_work, 201),
    ("POST", "/work/batch", work.submit_some_work, 200),
    ("GET", "/work", work.list_work, 200),
    ("GET", "/work/{work_id}", work.get_work, 200),
    ("DELETE", "/work/{work_id}", work.cancel_work, 200),
    ("POST", "/work/{work_id}/release", work.release_work, 200),
    ("POST", "/work/{work_id}/requeue", work.requeue_work, 200),
    ("POST", "/work/{work_id}/claim", claims.claim_work, 200),
    ("POST", "/work/{work_id}/progress", claims.report_progress, 204),
    ("POST", "/work/{work_id}/complete", claims.complete_work, 200),
    ("GET", "/agents/{ref}/work/pending", claims.list_pending_work, 200),
    ("POST", "/agents/{ref}/work/claim", claims.claim_some_work, 200),
    ("POST", "/agents/{ref}/work/complete", claims.complete_some_work, 200),
]
_AGENTS: list[tuple[str, str, Callable[..., Any], int]] = [
    ("POST", "/agents", agents.register_agent, 201),
    ("GET", "/agents", agents.list_agents, 200),
    ("GET", "/agents/{ref}", agents.get_agent, 200),
    ("PATCH", "/agents/{ref}", agents.relabel_agent, 200),
    ("DELETE", "/agents/{ref}", agents.delete_agent, 204),
    ("POST", "/agents/{ref}/drain", agents.drain_agent, 200),
    ("POST", "/agents/{ref}/undrain", agents.undrain_agent, 200),
    ("POST", "/agents/{ref}/rotate-key", agents.rotate_agent_key, 200),
    ("POST", "/agents/{ref}/heartbeat", agents.heartbeat, 200),
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
                    "code": {"type": "string"},
                    "detail": {"type": "string"},
                    "field": {"type": "string"},
                },
            }
        }
    },
}
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
    api = APIRouter(
        prefix="/api/v1",
        route_class=Door,
        dependencies=[bearer],
        responses={"4XX": _PROBLEM, "5XX": _PROBLEM},
    )
    for tag, routes in (("work", _WORK), ("agents", _AGENTS)):
        for method, path, handler, status in routes:
            extra = _YAML_TOO if handler is work.submit_work else None
            api.add_api_route(
                path,
                handler,
                methods=[method],
                status_code=status,
                tags=[tag],
                openapi_extra=extra,
            )
    app.include_router(api)
    for method, path, handler in _OPEN:
        app.add_api_route(path, handler, methods=[method], include_in_schema=False)
