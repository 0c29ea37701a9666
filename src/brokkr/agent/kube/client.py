"""
All that we ask of an API server, one method per request.

Objects come and go as plain JSON.  Nothing is retried here but a refused token, once;
every method raises :class:`~brokkr.agent.kube.errors.KubeError` and nothing else that
the network could cause.

``namespace`` is None for what is cluster-scoped, or to list or watch all namespaces.
"""

import json
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta
from http import HTTPStatus
from types import TracebackType
from typing import Any, Final, Self, TypeAlias

import aiohttp

from brokkr.agent.kinds import PODS, SERVICE_ACCOUNTS, Resource
from brokkr.agent.kube.config import KubeConfig
from brokkr.agent.kube.documents import read_json
from brokkr.agent.kube.errors import (
    KubeError,
    KubeExpired,
    KubeKindUnknown,
    KubeNotFound,
    KubeSilent,
    KubeUnavailable,
    error_of,
)
from brokkr.work.model import Manifest

FIELD_MANAGER: Final = "brokkr-agent"

Outcome: TypeAlias = Callable[[str, str, KubeError | None], None]
"""Called with the verb, the resource, and what went wrong, if anything did."""

Listed: TypeAlias = tuple[list[dict[str, Any]], str]
"""Objects, and the resource version from which to watch for what changes after them."""

Page: TypeAlias = tuple[list[dict[str, Any]], str, bool]
"""Some of the objects, their resource version, and whether a list begins with them."""

Permissions: TypeAlias = tuple[list[dict[str, Any]], bool]
"""Rules of roles, and whether they are all that there are."""

_PAGE: Final = 500
_LONGEST_ASKED: Final = timedelta(minutes=1)
"""No server that asks to be left alone is left alone for longer."""
_JSON: Final = "application/json"
_APPLY_PATCH: Final = "application/apply-patch+yaml"
_MERGE_PATCH: Final = "application/merge-patch+json"


def _tell_nobody(verb: str, resource: str, error: KubeError | None, /) -> None: ...


class KubeClient:
    """
    A connection to one API server; use it as an async context manager.

    Args:
        timeout: How long one request may take; a watch has limits of its own.

    Attributes:
        on_outcome: Told how each request for objects went.
    """

    def __init__(self, config: KubeConfig, *, timeout: timedelta = timedelta(seconds=30)) -> None:
        self.on_outcome: Outcome = _tell_nobody
        self._config = config
        self._timeout = aiohttp.ClientTimeout(total=timeout.total_seconds())
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        tls: ssl.SSLContext | bool = True if self._config.tls is None else self._config.tls
        # No limit on connections: each watch holds one for as long as it lives.
        connector = aiohttp.TCPConnector(ssl=tls, limit=0)
        self._session = aiohttp.ClientSession(connector=connector)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def is_ready(self) -> bool:
        """Say whether the API server calls itself ready."""
        try:
            async with self._response("GET", "/readyz"):
                return True
        except KubeError:
            return False

    async def serves(self, group: str, version: str, plural: str) -> bool:
        """Say whether the API server serves such a kind; everybody may ask that."""
        try:
            found = await self._json("GET", f"/apis/{group}/{version}")
        except (KubeNotFound, KubeKindUnknown):
            return False
        return any(each["name"] == plural for each in found.get("resources") or ())

    async def get(self, resource: Resource, namespace: str | None, name: str) -> dict[str, Any]:
        """
        Return one object.

        Raises:
            KubeNotFound: There is none of this name.
        """
        return await self._json("GET", resource.path(namespace, name))

    async def find(
        self, resource: Resource, namespace: str | None, name: str
    ) -> dict[str, Any] | None:
        """Return one object, or None if there is none of this name."""
        try:
            return await self.get(resource, namespace, name)
        except KubeNotFound:
            return None

    async def list(
        self, resource: Resource, namespace: str | None, *, label_selector: str | None = None
    ) -> Listed:
        """Return all objects, and the resource version to watch from."""
        items: list[dict[str, Any]] = []
        as_of = ""
        async for page, version, is_first in self.pages(
            resource, namespace, label_selector=label_selector
        ):
            items, as_of = (page if is_first else items + page), version
        return items, as_of

    async def pages(
        self, resource: Resource, namespace: str | None, *, label_selector: str | None = None
    ) -> AsyncGenerator[Page, None]:
        """
        Yield all objects, so many at a time that not all need to be in memory at once.

        When paging is slower than somebody's compaction, all come at once, on a page that
        is a first one again: what the pages before it have said is then void.
        """
        try:
            async for page in self._pages(resource, namespace, label_selector, limit=_PAGE):
                yield page
        except KubeExpired:
            async for page in self._pages(resource, namespace, label_selector, limit=0):
                yield page

    async def is_listed(self, resource: Resource, namespace: str | None) -> None:
        """
        Read the beginning of a list, from the store and not from a cache.

        Raises:
            KubeError: It cannot be listed.
        """
        await self._json("GET", resource.path(namespace), params={"limit": "1"})

    async def list_permissions(self, namespace: str) -> Permissions:
        """
        Return the rules of one's own roles that hold in a namespace, and whether those are all.

        Everybody who is authenticated may ask that, unless somebody has taken it away.
        """
        review = await self._review("SelfSubjectRulesReview", {"namespace": namespace})
        return review.get("resourceRules") or [], not review.get("incomplete")

    async def is_permitted(self, namespace: str, attributes: Mapping[str, str]) -> bool:
        """Say whether one may do this in a namespace: ``verb``, ``group``, ``resource``."""
        spec = {"resourceAttributes": {"namespace": namespace, **attributes}}
        return bool((await self._review("SelfSubjectAccessReview", spec)).get("allowed"))

    async def _review(self, kind: str, spec: Manifest) -> dict[str, Any]:
        body = {"apiVersion": "authorization.k8s.io/v1", "kind": kind, "spec": spec}
        path = f"/apis/authorization.k8s.io/v1/{kind.lower()}s"
        status: dict[str, Any] = (await self._json("POST", path, body=body)).get("status") or {}
        return status

    async def create(
        self,
        resource: Resource,
        namespace: str | None,
        manifest: Manifest,
        *,
        is_rehearsal: bool = False,
    ) -> dict[str, Any]:
        """
        Create an object, and return it as the server has it.

        Args:
            is_rehearsal: Have everything checked as for an object, and create none.

        Raises:
            KubeAlreadyExists: Its name is taken.
        """
        rehearsal = {"dryRun": "All"} if is_rehearsal else {}
        return await self._json(
            "POST",
            resource.path(namespace),
            # Servers before 1.25 know no such parameter, and drop unknown fields silently.
            params={"fieldManager": FIELD_MANAGER, "fieldValidation": "Strict", **rehearsal},
            body=manifest,
        )

    async def read_log(
        self, namespace: str, pod: str, container: str, *, lines: int, max_bytes: int
    ) -> str:
        """
        Return the end of what a container has said.

        Raises:
            KubeError: There is no such pod any more, its node is away, or the like.
        """
        params = {
            "container": container,
            "tailLines": str(lines),
            "limitBytes": str(max_bytes),
        }
        async with self._response(
            "GET", PODS.path(namespace, pod, "log"), params=params
        ) as response:
            said = b""
            # A read returns what is there, and most of a long log is still on its way.
            while more := await response.content.read(max_bytes - len(said)):
                said += more
            return said.decode(errors="replace")

    async def create_token(
        self, namespace: str, service_account: str, *, lifetime: timedelta
    ) -> str:
        """
        Return a new token of a service account; the server may give it a shorter life.

        Raises:
            KubeNotFound: There is no such account.
        """
        request = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {"expirationSeconds": round(lifetime.total_seconds())},
        }
        path = SERVICE_ACCOUNTS.path(namespace, service_account, "token")
        token: str = (await self._json("POST", path, body=request))["status"]["token"]
        return token

    async def apply(
        self,
        resource: Resource,
        namespace: str | None,
        manifest: Manifest,
        *,
        field_manager: str = FIELD_MANAGER,
    ) -> dict[str, Any]:
        """Make an object's fields what the manifest says (server-side apply, by force)."""
        return await self._json(
            "PATCH",
            resource.path(namespace, manifest["metadata"]["name"]),
            params={"fieldManager": field_manager, "force": "true"},
            body=manifest,
            content_type=_APPLY_PATCH,
        )

    async def merge_patch(
        self, resource: Resource, namespace: str | None, name: str, patch: Manifest
    ) -> dict[str, Any]:
        """
        Change single fields of an object; None takes one away.

        Raises:
            KubeNotFound: There is none of this name.
            KubeConflict: The patch names a resource version or uid, and it is another now.
        """
        return await self._json(
            "PATCH", resource.path(namespace, name), body=patch, content_type=_MERGE_PATCH
        )

    async def replace_status(
        self, resource: Resource, namespace: str | None, manifest: Manifest
    ) -> dict[str, Any]:
        """
        Write the status of an object, provided that nobody has changed the object since.

        Raises:
            KubeConflict: Its resource version is not the manifest's any more.
            KubeNotFound: It is gone.
        """
        name = manifest["metadata"]["name"]
        return await self._json("PUT", resource.path(namespace, name, "status"), body=manifest)

    async def delete(
        self,
        resource: Resource,
        namespace: str | None,
        name: str,
        *,
        uid: str | None = None,
        resource_version: str | None = None,
        at_once: bool = False,
    ) -> None:
        """
        Delete an object; what it owns follows in the background.  Gone already is fine.

        Args:
            at_once: Wait for no kubelet to stop a Pod's containers.

        Raises:
            KubeConflict: It has another uid or resource version than the given one.
        """
        given = {"uid": uid, "resourceVersion": resource_version}
        options = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "propagationPolicy": "Background",
            "preconditions": {key: value for key, value in given.items() if value is not None},
            **({"gracePeriodSeconds": 0} if at_once else {}),
        }
        try:
            await self._json("DELETE", resource.path(namespace, name), body=options)
        except KubeNotFound:
            return

    async def watch(
        self,
        resource: Resource,
        namespace: str | None,
        *,
        resource_version: str,
        label_selector: str | None = None,
        length: timedelta = timedelta(minutes=5),
        silence: timedelta = timedelta(seconds=90),
    ) -> AsyncGenerator[tuple[str, dict[str, Any]], None]:
        """
        Yield each change after a resource version: ADDED, MODIFIED, DELETED or BOOKMARK.

        A bookmark changes nothing; it only carries a newer resource version to go on from.

        Args:
            length: When the server shall end the stream; the iteration then ends, too.
            silence: How long to trust a connection on which nothing comes.  Servers send a
                bookmark each minute.

        Raises:
            KubeExpired: The resource version is too old; list again.
            KubeSilent: Nothing came for too long.
            KubeUnavailable: The stream broke, or reported trouble.
        """
        params = {
            "watch": "1",
            "allowWatchBookmarks": "true",
            "resourceVersion": resource_version,
            "timeoutSeconds": str(max(1, round(length.total_seconds()))),
        }
        if label_selector:
            params["labelSelector"] = label_selector
        limits = aiohttp.ClientTimeout(
            total=None, connect=self._timeout.total, sock_read=silence.total_seconds()
        )
        path = resource.path(namespace)
        with self._noting("watch", path) as began:
            async with self._response("GET", path, params=params, limits=limits) as response:
                began()
                async for event in _events(response, silence):
                    yield event

    async def _pages(
        self, resource: Resource, namespace: str | None, label_selector: str | None, limit: int
    ) -> AsyncGenerator[Page, None]:
        # Items of a list do not say what they are.
        kind = {"apiVersion": resource.api_version, "kind": resource.kind}
        params = {"limit": str(limit)}
        if label_selector:
            params["labelSelector"] = label_selector
        is_first = True
        while True:
            page = await self._json("GET", resource.path(namespace), params=params)
            items = [{**kind, **item} for item in page.get("items") or ()]
            yield items, page["metadata"]["resourceVersion"], is_first
            if not (token := page["metadata"].get("continue")):
                return
            params["continue"] = token
            is_first = False

    async def _json(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        body: Manifest | None = None,
        content_type: str = _JSON,
    ) -> dict[str, Any]:
        with self._noting(method, path) as succeeded:
            async with self._response(
                method, path, params=params, body=body, content_type=content_type
            ) as response:
                answer: dict[str, Any] = read_json(await response.read())
            succeeded()
            return answer

    @contextmanager
    def _noting(self, method: str, path: str) -> Iterator[Callable[[], None]]:
        """Tell how a request goes; what is yielded says that it went well."""
        asked = _asked_for(method, path)

        def note(error: KubeError | None = None) -> None:
            if asked is not None:
                self.on_outcome(*asked, error)

        try:
            yield note
        except KubeError as error:
            note(error)
            raise

    @asynccontextmanager
    async def _response(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        body: Manifest | None = None,
        content_type: str = _JSON,
        limits: aiohttp.ClientTimeout | None = None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Send one request; yield a good response, and make a KubeError of all else."""
        if self._session is None:
            raise RuntimeError("a KubeClient is used inside `async with`")
        data = None if body is None else json.dumps(body).encode()
        try:
            for is_last in (False, True):
                async with self._session.request(
                    method,
                    self._config.server + path,
                    params=params,
                    data=data,
                    headers=await self._headers(content_type),
                    timeout=limits or self._timeout,
                ) as response:
                    if response.status == HTTPStatus.UNAUTHORIZED and not is_last:
                        self._config.credentials.forget()
                        continue
                    if not response.ok:
                        raise await _refusal(response)
                    yield response
                    return
        except TimeoutError as error:
            raise KubeUnavailable(f"{self._config.server} did not answer in time") from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            reason = str(error) or type(error).__name__
            raise KubeUnavailable(f"{self._config.server}: {reason}") from error

    async def _headers(self, content_type: str) -> dict[str, str]:
        headers = {"Accept": _JSON, "Content-Type": content_type}
        if token := await self._config.credentials.token():
            headers["Authorization"] = f"Bearer {token}"
        return headers


async def _events(
    response: aiohttp.ClientResponse, silence: timedelta
) -> AsyncGenerator[tuple[str, dict[str, Any]], None]:
    """Yield what a watch says."""
    rest = b""
    # Not by the library's lines, whose length it limits: an object may have 1.5 MiB.
    chunks = response.content.iter_any()
    while True:
        try:
            chunk = await anext(chunks)
        except StopAsyncIteration:
            return
        except TimeoutError as error:
            raise KubeSilent(f"nothing came for {silence.total_seconds():g} s") from error
        *lines, rest = (rest + chunk).split(b"\n")
        for line in filter(None, lines):
            event = read_json(line)
            if event["type"] == "ERROR":
                raise error_of(event["object"].get("code") or 500, event["object"])
            yield event["type"], event["object"]


_VERBS: Final = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}


def _asked_for(method: str, path: str) -> tuple[str, str] | None:
    """Return verb and resource of a request, as roles name them; None if it is for no object."""
    root, *parts = path.strip("/").split("/")
    group = "" if root == "api" or not parts else parts[0]
    rest = parts[1:] if root == "api" else parts[2:]
    if rest[:1] == ["namespaces"] and len(rest) > 2:  # what it is, is behind it
        rest = rest[2:]
    if not rest:
        return None
    plural, name, part = (*rest, "", "")[:3]
    resource = (f"{plural}.{group}" if group else plural) + (f"/{part}" if part else "")
    verb = _VERBS.get(method, method)
    return ("get" if name else "list") if verb == "GET" else verb, resource


async def _refusal(response: aiohttp.ClientResponse) -> KubeError:
    """Read what a response other than 2xx says."""
    text = await response.read()
    try:
        status = read_json(text)
    except ValueError:
        status = None
    if not isinstance(status, dict):
        said = text.decode(errors="replace").strip()[:500]
        status = {"message": f"HTTP {response.status}: {said}"}
    after = response.headers.get("Retry-After", "")
    is_number = after.isdecimal() and len(after) < 10
    retry_after = min(timedelta(seconds=int(after)), _LONGEST_ASKED) if is_number else None
    return error_of(response.status, status, retry_after=retry_after)
