"""
Stands between an agent and its API server, and counts what is asked by verb and resource.

It adds to each request's time, so nothing is timed while it stands there.
"""

from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import yaml
from aiohttp import web

from brokkr.agent.kube.config import KubeConfig

_PER_CONNECTION = {"connection", "content-length", "host", "transfer-encoding", "content-encoding"}
_VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}


@asynccontextmanager
async def counting_proxy(kubeconfig: Path) -> AsyncIterator[tuple[Path, Counter[str]]]:
    """Stand there for the block; yield a kubeconfig that leads here, and the count."""
    config = KubeConfig.load(kubeconfig)
    counted: Counter[str] = Counter()
    connector = aiohttp.TCPConnector(ssl=config.tls or True, limit=0)
    timeout = aiohttp.ClientTimeout(total=None)
    async with aiohttp.ClientSession(
        connector=connector, auto_decompress=False, timeout=timeout
    ) as session:

        async def forward(request: web.Request) -> web.StreamResponse:
            async with session.request(
                request.method,
                config.server + request.raw_path,
                data=await request.read() or None,
                headers=_passed_on(request.headers),
            ) as answer:
                refused = f" ({answer.status})" if answer.status >= 400 else ""
                counted[_name_of(request) + refused] += 1
                response = web.StreamResponse(
                    status=answer.status, headers=_passed_on(answer.headers)
                )
                await response.prepare(request)
                async for chunk in answer.content.iter_any():
                    await response.write(chunk)
                await response.write_eof()
                return response

        app = web.Application(client_max_size=8 * 1024 * 1024)
        app.router.add_route("*", "/{path:.*}", forward)
        runner = web.AppRunner(
            app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True
        )
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        document = yaml.safe_load(kubeconfig.read_text())
        document["clusters"][0]["cluster"] = {
            "server": f"http://127.0.0.1:{runner.addresses[0][1]}"
        }
        proxied = kubeconfig.with_name("proxied")
        proxied.write_text(yaml.safe_dump(document))
        try:
            yield proxied, counted
        finally:
            await runner.cleanup()


def _passed_on(headers: Mapping[str, str]) -> dict[str, str]:
    return {k: v for k, v in headers.items() if k.lower() not in _PER_CONNECTION}


def _name_of(request: web.Request) -> str:
    """Name a request as RBAC does: its verb and its resource."""
    parts = request.path.strip("/").split("/")
    rest = parts[2:] if parts[0] == "api" else parts[3:]
    if not rest:
        return "get what is served"
    if rest[0] == "namespaces" and len(rest) > 2:
        rest = rest[2:]
    resource = "/".join([rest[0], *rest[2:]])
    if request.method != "GET":
        return f"{_VERBS[request.method]} {resource}"
    if len(rest) > 1:
        return f"get {resource}"
    return f"{'watch' if 'watch' in request.query else 'list'} {resource}"
