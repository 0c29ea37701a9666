"""
The informer against a fake API server that misbehaves on command, and against a real one.

The fake knows one collection of ConfigMaps and the watch protocol.  That it answers as the
real server does is what the last test is for: it runs on both.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from aiohttp import web

from brokkr.agent.kinds import CONFIG_MAPS
from brokkr.agent.kube.client import KubeClient
from brokkr.agent.kube.config import KubeConfig
from brokkr.agent.kube.informer import Informer, Timing
from brokkr.local.process import free_port

HASTY = Timing(first_pause=timedelta(milliseconds=10), longest_pause=timedelta(milliseconds=50))

GONE = {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old"}
TOO_LARGE = {"kind": "Status", "code": 504, "message": "Too large resource version"}


def a_config_map(name: str, version: int, *, uid: str | None = None) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "uid": uid or f"uid-{name}", "resourceVersion": str(version)},
        "data": {},
    }


class FakeApiServer:
    """Serves ConfigMaps; records what it was asked."""

    def __init__(self) -> None:
        self.objects: dict[str, dict[str, Any]] = {}
        self.version = 100
        self.lists = 0
        self.watched_from: list[str] = []
        self.refuses_watches_with: int | None = None
        self.page: int | None = None
        self.between_pages: Callable[[], web.Response | None] = lambda: None
        self._history: list[tuple[str, dict[str, Any]]] = []
        self._streams: list[asyncio.Queue[dict[str, Any] | None]] = []
        self._asked = asyncio.Condition()
        self._is_up = False

    def change(self, kind: str, manifest: dict[str, Any], *, quietly: bool = False) -> None:
        """Change the collection; ``quietly``: no watch ever hears of it."""
        self.version = int(manifest["metadata"]["resourceVersion"])
        if kind == "DELETED":
            self.objects.pop(manifest["metadata"]["name"], None)
        else:
            self.objects[manifest["metadata"]["name"]] = manifest
        if not quietly:
            self._history.append((kind, manifest))
            self.send(kind, manifest)

    def send(self, kind: str, manifest: dict[str, Any]) -> None:
        for stream in self._streams:
            stream.put_nowait({"type": kind, "object": manifest})

    def come_up(self) -> None:
        self._is_up = True

    def go_down(self) -> None:
        self._is_up = False
        self.end_streams()

    def end_streams(self) -> None:
        for stream in self._streams:
            stream.put_nowait(None)

    async def until_watches(self, number: int) -> None:
        async with asyncio.timeout(10), self._asked:
            await self._asked.wait_for(lambda: len(self.watched_from) >= number)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        if "watch" not in request.query:
            return self._list(request)
        stream: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
        self._streams.append(stream)
        for kind, manifest in self._history:
            if int(manifest["metadata"]["resourceVersion"]) > int(request.query["resourceVersion"]):
                stream.put_nowait({"type": kind, "object": manifest})
        try:
            async with self._asked:
                self.watched_from.append(request.query["resourceVersion"])
                self._asked.notify_all()
            if not self._is_up:  # asked in its last moment
                raise web.HTTPServiceUnavailable
            if self.refuses_watches_with is not None:
                return web.json_response(GONE, status=self.refuses_watches_with)
            response = web.StreamResponse()
            await response.prepare(request)
            while (event := await stream.get()) is not None:
                await response.write(json.dumps(event).encode() + b"\n")
        finally:
            self._streams.remove(stream)
        return response

    def _list(self, request: web.Request) -> web.Response:
        """Answer with all that there is, or with a page if asked for one, and if told to."""
        start = int(request.query.get("continue", 0))
        if start and (refusal := self.between_pages()) is not None:
            return refusal
        self.lists += not start
        names = sorted(self.objects)
        end = start + (self.page if self.page and request.query["limit"] != "0" else len(names))
        metadata = {"resourceVersion": str(self.version)}
        if end < len(names):
            metadata["continue"] = str(end)
        items = [self.objects[name] for name in names[start:end]]
        return web.json_response({"metadata": metadata, "items": items})


@asynccontextmanager
async def serving(fake: FakeApiServer, port: int) -> AsyncIterator[None]:
    app = web.Application()
    app.router.add_get("/api/v1/namespaces/ns/configmaps", fake.answer)
    runner = web.AppRunner(app, shutdown_timeout=0)
    await runner.setup()
    try:
        fake.come_up()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        yield
    finally:
        fake.go_down()
        await runner.cleanup()


class Witness:
    """Hears an informer's events, and lets a test wait for one."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, str]] = []
        self._news = asyncio.Event()

    def __call__(self, kind: str, manifest: dict[str, Any]) -> None:
        self.heard.append((kind, manifest["metadata"]["name"]))
        self._news.set()

    async def until_heard(self, *events: tuple[str, str]) -> None:
        async with asyncio.timeout(10):
            while any(event not in self.heard for event in events):
                self._news.clear()
                await self._news.wait()


@asynccontextmanager
async def informed(
    kube: KubeClient, namespace: str, witness: Witness, **options: Any
) -> AsyncIterator[Informer]:
    """Run an informer for the length of the block."""
    informer = Informer(
        kube, CONFIG_MAPS, namespace, on_event=witness, **{"timing": HASTY, **options}
    )
    running = asyncio.create_task(informer.run())
    try:
        yield informer
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running


@pytest.fixture
def fake() -> FakeApiServer:
    return FakeApiServer()


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
async def client(port: int) -> AsyncIterator[KubeClient]:
    async with KubeClient(KubeConfig(server=f"http://127.0.0.1:{port}")) as kube:
        yield kube


@pytest.fixture
def witness() -> Witness:
    return Witness()


async def test_it_lists_and_then_watches_from_there(
    fake: FakeApiServer, client: KubeClient, port: int, witness: Witness
) -> None:
    fake.change("ADDED", a_config_map("a", 101))
    async with serving(fake, port), informed(client, "ns", witness) as informer:
        await fake.until_watches(1)
        assert informer.synced.is_set()
        fake.change("ADDED", a_config_map("b", 102))
        await witness.until_heard(("ADDED", "b"))

    assert witness.heard == [("ADDED", "a"), ("ADDED", "b")]
    assert set(informer.cache) == {"a", "b"}
    assert fake.watched_from[0] == "101"


@pytest.mark.parametrize("how", ["as an event", "as a response"])
async def test_what_vanished_in_a_gap_is_reported_as_deleted(
    fake: FakeApiServer, client: KubeClient, port: int, witness: Witness, how: str
) -> None:
    for version, name in enumerate(("kept", "gone", "changed"), 101):
        fake.change("ADDED", a_config_map(name, version))
    async with serving(fake, port), informed(client, "ns", witness) as informer:
        await fake.until_watches(1)
        witness.heard.clear()
        fake.change("DELETED", a_config_map("gone", 104), quietly=True)
        fake.change("MODIFIED", a_config_map("changed", 105), quietly=True)
        fake.change("ADDED", a_config_map("new", 106), quietly=True)
        if how == "as a response":
            fake.refuses_watches_with = 410
            fake.end_streams()
            await fake.until_watches(2)
            fake.refuses_watches_with = None
        else:
            fake.send("ERROR", GONE)
        await witness.until_heard(("DELETED", "gone"), ("MODIFIED", "changed"), ("ADDED", "new"))

    assert len(witness.heard) == 3
    assert set(informer.cache) == {"kept", "changed", "new"}


async def test_a_list_is_taken_in_page_by_page(
    fake: FakeApiServer, client: KubeClient, port: int, witness: Witness
) -> None:
    fake.page = 2
    for version, name in enumerate("abcde", 101):
        fake.change("ADDED", a_config_map(name, version), quietly=True)
    heard: list[int] = []

    def note() -> None:
        heard.append(len(witness.heard))

    fake.between_pages = note
    async with serving(fake, port), informed(client, "ns", witness) as informer:
        await fake.until_watches(1)

    assert heard == [2, 4]
    assert set(informer.cache) == {*"abcde"}


async def test_a_list_that_was_compacted_away_between_two_pages_begins_anew(
    fake: FakeApiServer, client: KubeClient, port: int, witness: Witness
) -> None:
    fake.page = 2
    for version, name in enumerate("abc", 101):
        fake.change("ADDED", a_config_map(name, version), quietly=True)

    def compact() -> web.Response:
        fake.change("DELETED", a_config_map("a", 104), quietly=True)
        return web.json_response(GONE, status=410)

    fake.between_pages = compact
    async with serving(fake, port), informed(client, "ns", witness) as informer:
        await fake.until_watches(1)

    assert set(informer.cache) == {"b", "c"}
    assert ("DELETED", "a") in witness.heard
    assert fake.watched_from[0] == "104"


async def test_nothing_is_watched_from_a_list_that_broke_off(
    fake: FakeApiServer, client: KubeClient, port: int, witness: Witness
) -> None:
    fake.page = 2
    for version, name in enumerate("abc", 101):
        fake.change("ADDED", a_config_map(name, version), quietly=True)
    breaks = iter([True])

    def break_once() -> web.Response | None:
        return web.json_response(TOO_LARGE, status=504) if next(breaks, False) else None

    fake.between_pages = break_once
    async with serving(fake, port), informed(client, "ns", witness) as informer:
        await fake.until_watches(1)

    assert fake.lists == 2
    assert set(informer.cache) == {*"abc"}


async def test_another_object_of_the_same_name_is_a_deletion_and_an_addition(
    fake: FakeApiServer, client: KubeClient, port: int, witness: Witness
) -> None:
    fake.change("ADDED", a_config_map("a", 101, uid="first"))
    async with serving(fake, port), informed(client, "ns", witness) as informer:
        await fake.until_watches(1)
        fake.change("ADDED", a_config_map("a", 102, uid="second"), quietly=True)
        fake.send("ERROR", GONE)
        await witness.until_heard(("DELETED", "a"))

    assert witness.heard == [("ADDED", "a"), ("DELETED", "a"), ("ADDED", "a")]
    assert informer.cache["a"]["metadata"]["uid"] == "second"


async def test_trouble_that_passes_costs_no_second_list(
    fake: FakeApiServer, client: KubeClient, port: int, witness: Witness
) -> None:
    async with serving(fake, port), informed(client, "ns", witness):
        await fake.until_watches(1)
        fake.send("ERROR", TOO_LARGE)
        await fake.until_watches(2)
        fake.change("ADDED", a_config_map("a", 101))
        await witness.until_heard(("ADDED", "a"))

    assert fake.lists == 1


async def test_a_bookmark_is_where_the_next_watch_begins(
    fake: FakeApiServer, client: KubeClient, port: int, witness: Witness
) -> None:
    async with serving(fake, port), informed(client, "ns", witness):
        await fake.until_watches(1)
        fake.send("BOOKMARK", {"kind": "ConfigMap", "metadata": {"resourceVersion": "170"}})
        fake.end_streams()
        await fake.until_watches(2)

    assert fake.watched_from[:2] == ["100", "170"]
    assert (fake.lists, witness.heard) == (1, [])


async def test_an_outage_is_resumed_where_it_began(
    fake: FakeApiServer, client: KubeClient, port: int, witness: Witness
) -> None:
    async with informed(client, "ns", witness) as informer:
        async with serving(fake, port):
            await fake.until_watches(1)
            fake.change("ADDED", a_config_map("a", 101))
            await witness.until_heard(("ADDED", "a"))
        seen = len(fake.watched_from)
        async with serving(fake, port):
            await fake.until_watches(seen + 1)
            fake.change("DELETED", a_config_map("a", 102))
            await witness.until_heard(("DELETED", "a"))

    assert informer.cache == {}
    assert fake.lists == 1
    assert fake.watched_from[seen] == "101"


async def test_it_waits_for_a_server_that_is_not_there_yet(
    fake: FakeApiServer, client: KubeClient, port: int, witness: Witness
) -> None:
    fake.change("ADDED", a_config_map("a", 101))
    async with informed(client, "ns", witness) as informer:
        assert not informer.synced.is_set()
        async with serving(fake, port):
            await witness.until_heard(("ADDED", "a"))

    assert informer.synced.is_set()


async def test_a_silent_stream_is_given_up_and_resumed(
    fake: FakeApiServer, client: KubeClient, port: int, witness: Witness
) -> None:
    distrustful = replace(HASTY, silence=timedelta(milliseconds=100))
    async with serving(fake, port), informed(client, "ns", witness, timing=distrustful):
        await fake.until_watches(2)  # nobody said or ended anything
        fake.change("ADDED", a_config_map("a", 101))
        await witness.until_heard(("ADDED", "a"))

    assert fake.lists == 1


async def test_a_server_that_ends_each_stream_at_once_is_not_flooded(
    fake: FakeApiServer, client: KubeClient, port: int, witness: Witness
) -> None:
    fake.refuses_watches_with = 410
    patient = Timing(first_pause=timedelta(milliseconds=50), longest_pause=timedelta(seconds=1))
    async with serving(fake, port), informed(client, "ns", witness, timing=patient):
        # Pauses of 0, 50, 100, 200, 400 and 800 ms, shortened by at most half.
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.7):
                await fake.until_watches(8)

    assert 2 <= len(fake.watched_from) <= 6


async def test_the_cache_holds_what_is_worth_keeping(
    fake: FakeApiServer, client: KubeClient, port: int, witness: Witness
) -> None:
    fake.change("ADDED", a_config_map("a", 101) | {"data": {"big": "x" * 10_000}})

    def without_data(manifest: dict[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in manifest.items() if key != "data"}

    async with serving(fake, port), informed(client, "ns", witness, keep=without_data) as informer:
        await fake.until_watches(1)

    assert "data" not in informer.cache["a"]


class OnTheFake:
    """Makes and removes a ConfigMap on the fake server."""

    def __init__(self, fake: FakeApiServer) -> None:
        self._fake = fake

    async def create(self, name: str) -> None:
        self._fake.change("ADDED", a_config_map(name, self._fake.version + 1))

    async def delete(self, name: str) -> None:
        self._fake.change("DELETED", a_config_map(name, self._fake.version + 1))


class OnTheRealOne:
    """Does the same on the real server."""

    def __init__(self, kube: KubeClient, namespace: str) -> None:
        self._kube = kube
        self._namespace = namespace

    async def create(self, name: str) -> None:
        manifest = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}}
        await self._kube.create(CONFIG_MAPS, self._namespace, manifest)

    async def delete(self, name: str) -> None:
        await self._kube.delete(CONFIG_MAPS, self._namespace, name)


async def _a_life(
    kube: KubeClient, namespace: str, witness: Witness, world: OnTheFake | OnTheRealOne
) -> None:
    await world.create("early")
    async with informed(kube, namespace, witness) as informer:
        await witness.until_heard(("ADDED", "early"))
        await world.create("late")
        await witness.until_heard(("ADDED", "late"))
        await world.delete("early")
        await witness.until_heard(("DELETED", "early"))

    assert witness.heard == [("ADDED", "early"), ("ADDED", "late"), ("DELETED", "early")]
    assert set(informer.cache) == {"late"}
    assert informer.cache["late"]["kind"] == "ConfigMap"


async def test_the_fake_server_behaves_like_the_real_one_here(
    fake: FakeApiServer, client: KubeClient, port: int, witness: Witness
) -> None:
    async with serving(fake, port):
        await _a_life(client, "ns", witness, OnTheFake(fake))


async def test_the_real_server_behaves_like_the_fake_one_here(
    kube: KubeClient, namespace: str, witness: Witness
) -> None:
    await _a_life(kube, namespace, witness, OnTheRealOne(kube, namespace))
