"""
Input that nobody sends by mistake: refused at once, with the right status, and forgotten.

Each of these costs a careless reader seconds, gigabytes or a 500.
"""

import asyncio
import gc
import json
import socket
import time
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any
from uuid import uuid4

import pytest
import yaml

from brokkr.broker.api import connection
from brokkr.broker.api.connection import MAX_HEAD_BYTES
from brokkr.broker.app import Server
from brokkr.broker.db.keys import create_admin_key
from brokkr.broker.settings import BrokerSettings
from support.broker import serving
from support.factories import a_build_template
from support.postgres import fresh_database
from support.signals import eventually

MIB = 1024 * 1024
SILENT = 500
LEAK = 64 * 1024
JSON, YAML = "application/json", "application/yaml"


def a_submission(**fields: Any) -> dict[str, Any]:
    target = {"match_labels": {"any": "yes"}}
    return {"work_type": "build", "template": a_build_template(), "target": target, **fields}


def a_body(**fields: Any) -> bytes:
    return json.dumps(a_submission(**fields)).encode()


def as_yaml(text: str) -> bytes:
    """A good submission but for its template, which is this text."""
    return a_body(template=text)


def in_spec(value: Any) -> bytes:
    return a_body(template=a_build_template(paramValues=value))


def in_parameter(value: str) -> bytes:
    return a_body(template=a_build_template(paramValues=[{"name": "text", "value": value}]))


def nested(levels: int) -> Any:
    value: Any = "x"
    for _ in range(levels):
        value = {"a": value}
    return value


LOL = "a0: &a0 [lol]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12)
)
GOOD = json.dumps(a_submission())
A_LOT = yaml.safe_dump(
    a_submission(
        template=a_build_template(
            paramValues=[{"name": "some", "values": [{"value": "a"} for _ in range(3_250)]}]
        )
    )
).encode()
"""As much YAML as anybody may send."""

HOSTILE: dict[str, tuple[str, bytes, int]] = {
    # -- what is no JSON or YAML, or not quite
    "nothing": (JSON, b"", 400),
    "half of it": (JSON, GOOD[:50].encode(), 400),
    "a number that JSON does not have": (JSON, b'{"priority": NaN}', 400),
    "the same key twice": (JSON, b'{"priority": 1, "priority": 2}', 400),
    "the same key twice, deep inside": (JSON, b'{"template": {"a": {"b": 1, "b": 2}}}', 400),
    "the same key twice in YAML": (YAML, b"priority: 1\npriority: 2", 400),
    "a key that is no string": (YAML, b"1: a", 400),
    "a key that is a list": (YAML, b"? [a]\n: b", 400),
    "JSON in UTF-16": (JSON, GOOD.encode("utf-16"), 400),
    "JSON in UTF-16 without a mark": (JSON, GOOD.encode("utf-16-le"), 400),
    "JSON in UTF-32": (JSON, GOOD.encode("utf-32"), 400),
    "JSON in Latin-1": (JSON, '{"work_type": "bücher"}'.encode("latin-1"), 400),
    "JSON with a byte order mark": (JSON, GOOD.encode("utf-8-sig"), 400),
    "YAML in UTF-16": (YAML, GOOD.encode("utf-16"), 400),
    "YAML in Latin-1": (YAML, "work_type: bücher".encode("latin-1"), 400),
    "YAML with a byte order mark": (YAML, GOOD.encode("utf-8-sig"), 400),
    "a surrogate in UTF-8": (JSON, b'{"work_type": "\xed\xa0\x80"}', 400),
    "an overlong NUL": (JSON, b'{"work_type": "\xc0\x80"}', 400),
    "Python in YAML": (YAML, b"!!python/object/apply:os.system [true]", 400),
    # -- bombs
    "brackets without end": (JSON, b"[" * MIB, 400),
    "objects without end": (JSON, b'{"a":' * (MIB // 5), 400),
    "brackets without end in YAML": (YAML, b"[" * MIB, 400),
    "dashes without end in YAML": (YAML, b"- " * (MIB // 2), 400),
    "aliases": (YAML, LOL.encode(), 400),
    "an alias to itself": (YAML, b"a: &a [*a]", 400),
    "a merge key": (YAML, b"a: &a {b: 1}\nc: {<<: *a}", 400),
    "a merge key without an alias": (YAML, b"<<: {a: 1}", 400),
    "aliases in a template's text": (JSON, as_yaml(LOL), 422),
    "half a million values": (JSON, b"[" + b"0," * (MIB // 2 - 2) + b"0]", 400),
    "half a million values in YAML": (YAML, b"[" + b"a," * (MIB // 2 - 2) + b"a]", 400),
    "half a million lines of YAML": (YAML, b"- a\n" * (MIB // 4), 400),
    "two hundred thousand documents": (YAML, b"--- a\n" * (MIB // 6), 400),
    "many values in a template's text": (JSON, as_yaml("- a\n" * 200_000), 422),
    "a number of a million digits": (JSON, b'{"priority": ' + b"9" * 1_000_000 + b"}", 400),
    "a number of a million digits in YAML": (YAML, b"priority: " + b"9" * 1_000_000, 400),
    "a hexadecimal number of a million digits": (YAML, b"priority: 0x" + b"f" * 1_000_000, 422),
    "a number to base 60": (YAML, b"priority: " + b"1:" * 500_000 + b"1", 422),
    "a declared number to base 60": (YAML, b"priority: !!int " + b"1:" * 500_000 + b"1", 400),
    "a fraction to base 60": (YAML, b"priority: " + b"1:" * 500 + b"1.5", 422),
    "fifty thousand unknown fields": (
        JSON,
        json.dumps(dict.fromkeys(map(str, range(50_000)), 0)).encode(),
        400,
    ),
    "ninety thousand wrong targets": (JSON, a_body(target=[{"agents": [0] * 900}] * 100), 422),
    "ninety thousand wrong documents": (JSON, a_body(template=[0] * 90_000), 422),
    "ten thousand labels": (JSON, a_body(labels=dict.fromkeys(map(str, range(10_000)), "")), 400),
    # -- what nobody can keep
    "a NUL": (JSON, a_body(work_type="build\0"), 422),
    "a NUL in a key": (JSON, a_body(labels={"a\0": "b"}), 422),
    "a NUL in a template": (JSON, in_spec([{"name": "a\0"}]), 422),
    "a NUL in a template's text": (JSON, as_yaml('a: "\\0"'), 422),
    "half a surrogate pair": (JSON, a_body(labels={"a": "\ud800"}), 422),
    "a number that is too large to be one": (JSON, b'{"priority": 1e999}', 422),
    "a number of 65 bits": (JSON, in_spec(2**64), 422),
    # -- absurd numbers and times
    "a priority of 65 bits": (JSON, a_body(priority=2**64), 422),
    "a priority of 1e308": (JSON, a_body(priority=1e308), 422),
    "a fraction of a retry": (JSON, a_body(max_retries=0.5), 422),
    "minus one retry": (JSON, a_body(max_retries=-1), 422),
    "a lease of nothing": (JSON, a_body(claim_timeout_seconds=0), 422),
    "a lease of a lifetime": (JSON, a_body(claim_timeout_seconds=2**31), 422),
    "a start in the year 1": (JSON, a_body(not_before="0001-01-01T00:00:00+14:00"), 422),
    "a start in the year 9999": (JSON, a_body(not_before="9999-12-31T23:59:59-14:00"), 422),
    "a start without a time zone": (JSON, a_body(not_before="2026-01-01T00:00:00"), 422),
    # -- too much
    "a body over the limit": (JSON, b'"' + b"x" * 2 * MIB + b'"', 413),
    "a template over the limit": (JSON, in_spec("x" * 600_000), 422),
    "a template that is too deep": (JSON, in_spec(nested(63)), 422),
    "a body that is too deep": (JSON, in_spec(nested(500)), 400),
    "a name of a megabyte": (JSON, a_body(work_type="x" * 900_000), 422),
    "a kind of half a megabyte": (JSON, a_body(template={"kind": "x" * 500_000}), 422),
    # -- texts that a pattern would read again and again
    "dots for the look-out for credentials": (JSON, in_parameter("a." * 250_000 + "@"), 201),
    "colons for the look-out for credentials": (JSON, in_parameter("a://" * 125_000 + "@"), 422),
    "credentials at the end of it all": (JSON, in_spec("a." * 200_000 + "http://x@y"), 422),
}
REFUSED_BY_FIELD: dict[str, tuple[dict[str, Any], str]] = {
    "an unknown field": ({"priorty": 1}, "priorty"),
    "an unknown type": ({"work_type": "brew"}, "work_type"),
    "no template": ({"template": []}, "template"),
    "a template that is a number": ({"template": 7}, "template"),
    "a Secret": ({"template": {"apiVersion": "v1", "kind": "Secret"}}, "template.kind"),
    "a kind that builds may not have": (
        {"template": {"apiVersion": "v1", "kind": "Pod"}},
        "template.kind",
    ),
    "another version of a kind": (
        {"template": {"apiVersion": "shipwright.io/v1alpha1", "kind": "Build"}},
        "template.kind",
    ),
    "a kind that is a list": ({"template": {"apiVersion": "v1", "kind": ["Pod"]}}, "template.kind"),
    "a password in a URL": (
        {
            "template": a_build_template(
                source={"type": "Git", "git": {"url": "https://me:secret@git.example/a"}}
            )
        },
        "template.spec.source.git.url",
    ),
    "a token in a URL": (
        {
            "template": a_build_template(
                source={"type": "Git", "git": {"url": "HTTPS://token@git.example/a"}}
            )
        },
        "template.spec.source.git.url",
    ),
    "a password for ssh": (
        {"template": a_build_template(env=[{"name": "A", "value": "ssh://git:pw@git.example/a"}])},
        "template.spec.env[0].value",
    ),
    "a name that is too long": (
        {"template": {**a_build_template(), "metadata": {"name": "x" * 64}}},
        "template.metadata.name",
    ),
    "a name that is none": (
        {"template": {**a_build_template(), "metadata": {"name": "a..b"}}},
        "template.metadata.name",
    ),
    "an owner": (
        {"template": {**a_build_template(), "metadata": {"ownerReferences": []}}},
        "template.metadata.ownerReferences",
    ),
    "no target": ({"target": {}}, "target"),
    "no targets": ({"target": []}, "target"),
    "a target among others that is empty": ({"target": [{"agents": ["a"]}, {}]}, "target[1]"),
    "a target of nobody": ({"target": {"agents": [], "match_labels": {}}}, "target"),
    "a label that no agent can have": ({"target": {"match_labels": {"a b": "c"}}}, "target"),
    "an operator that does not exist": (
        {"target": {"match_expressions": [{"key": "a", "operator": "Like", "values": ["b"]}]}},
        "target.match_expressions[0].operator",
    ),
    "too high a priority": ({"priority": 101}, "priority"),
    "a priority in words": ({"priority": "high"}, "priority"),
    "too many retries": ({"max_retries": 21}, "max_retries"),
    "too many hand-offs": ({"max_handoffs": 21}, "max_handoffs"),
    "no time to start": ({"start_within_seconds": 0}, "start_within_seconds"),
    "too long a key": ({"idempotency_key": "x" * 256}, "idempotency_key"),
}


class Door:
    """A broker as it is configured by default, and a connection to it."""

    def __init__(self, url: str, key: str, server: Server) -> None:
        self.server = server
        self.host, _, port = url.removeprefix("http://").partition(":")
        self.port = int(port)
        self.key = key

    async def send(self, *parts: bytes, end: bool = False) -> tuple[int, dict[str, Any]]:
        """Send bytes on a connection of their own, and read the answer's status and body."""
        reader, writer = await asyncio.open_connection(self.host, self.port)
        try:
            for part in parts:
                writer.write(part)
            if end:
                writer.write_eof()
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            status = int(head.split()[1])
            length = head.lower().partition("content-length: ")[2].partition("\r")[0]
            body = await reader.readexactly(int(length or 0))
        finally:
            writer.close()
        return status, json.loads(body) if b"{" in body else {}

    async def takes(self, first: bytes, more: bytes, *, reads: bool = False) -> int:
        """Send more and more; return after how many bytes the connection was closed."""
        reader, writer = await asyncio.open_connection(self.host, self.port)
        writer.write(first)
        for sent in range(0, 100 * MIB, len(more)):
            writer.write(more)
            try:
                await writer.drain()
            except ConnectionError:
                return sent
            if reads:
                with suppress(ConnectionError):
                    await reader.read(MIB)
            await asyncio.sleep(0)
        return 100 * MIB

    async def is_visited(self) -> None:
        """Wait until the broker has a connection."""

        async def is_so() -> bool:
            return bool(self.server.server_state.connections)

        await eventually(is_so)

    async def is_left_alone(self) -> None:
        """Wait until the broker has no connection any more."""

        async def is_so() -> bool:
            return not self.server.server_state.connections

        await eventually(is_so)

    def head(self, method: str = "POST", path: str = "/api/v1/work", **headers: object) -> bytes:
        lines = [f"{method} {path} HTTP/1.1", "host: broker", f"authorization: Bearer {self.key}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        return ("\r\n".join(lines) + "\r\n\r\n").encode()

    async def an_agents_key(self) -> str:
        """Register an agent; return its key."""
        body = json.dumps({"name": f"edge-{uuid4()}"}).encode()
        head = self.head(path="/api/v1/agents", content_length=len(body))
        _, agent = await self.send(head + body)
        key: str = agent["key"]
        return key

    async def submit(self, kind: str, body: bytes) -> tuple[int, dict[str, Any]]:
        return await self.send(self.head(content_type=kind, content_length=len(body)), body)


@pytest.fixture(scope="module")
async def the_broker(postgres_server: str) -> AsyncIterator[Door]:
    async with fresh_database(postgres_server) as database_url:
        key = await create_admin_key(database_url)
        async with serving(BrokerSettings(), database_url) as app:
            yield Door(app.url, key, app.server)


@pytest.fixture
async def door(the_broker: Door) -> AsyncIterator[Door]:
    """One broker for all tests here: what one of them did to it, the next would notice."""
    key = the_broker.key
    yield the_broker
    the_broker.key = key
    await the_broker.is_left_alone()


async def test_each_is_refused_for_what_it_is(door: Door) -> None:
    seen = {name: (await door.submit(kind, body))[0] for name, (kind, body, _) in HOSTILE.items()}

    assert seen == {name: status for name, (_, _, status) in HOSTILE.items()}


@pytest.mark.parametrize("name", REFUSED_BY_FIELD)
async def test_what_is_wrong_with_a_submission_is_said_with_its_field(
    door: Door, name: str
) -> None:
    fields, field = REFUSED_BY_FIELD[name]

    status, problem = await door.submit(JSON, a_body(**fields))

    assert (status, problem["field"]) == (422, field)


async def test_none_costs_much_more_than_good_input(door: Door) -> None:
    """Measured as a ratio, and the best of a few: other programs are not what is measured."""

    async def cost(kind: str, body: bytes, *, of: int, enough: float = 0) -> float:
        took = []
        for _ in range(of):
            began = time.perf_counter()
            await door.submit(kind, body)
            took.append(time.perf_counter() - began)
            if took[-1] < enough:
                break
        return min(took)

    status, _ = await door.submit(YAML, A_LOT)
    largest = await cost(YAML, A_LOT, of=3)
    costs = {
        name: await cost(kind, body, of=5, enough=largest)
        for name, (kind, body, _) in HOSTILE.items()
    }

    assert status == 201
    assert {name: each / largest for name, each in costs.items() if each > 3 * largest} == {}


async def test_nothing_of_it_is_kept_in_memory(door: Door) -> None:
    """
    What leaks does so in every round.

    What the process has of other tests is not counted, and a cache that is filled once in a
    while, or garbage of somebody else's, is not in each of them.
    """
    refused = {name: each for name, each in HOSTILE.items() if each[2] != 201}

    async def send_all() -> int:
        for kind, body, _ in refused.values():
            await door.submit(kind, body)
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    await send_all()  # what is made once is made
    tracemalloc.start()
    try:
        held = [await send_all()]
        grown: list[int] = []
        while len(grown) < 4 and min(grown, default=LEAK) >= LEAK:
            held.append(await send_all())
            grown.append(held[-1] - held[-2])
    finally:
        tracemalloc.stop()

    assert min(grown) < LEAK, f"{grown} bytes more in each round"


async def test_the_broker_is_well_after_all_that(door: Door) -> None:
    for kind, body, _ in HOSTILE.values():
        await door.submit(kind, body)

    status, _ = await door.submit(JSON, a_body())

    assert status == 201


async def test_a_body_that_is_announced_too_large_is_not_waited_for(door: Door) -> None:
    status, problem = await door.send(door.head(content_length=10**12))

    assert (status, problem["code"]) == (413, "body_too_large")


async def test_a_body_in_chunks_without_end_is_cut_off(door: Door) -> None:
    chunk = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"

    status, problem = await door.send(door.head(transfer_encoding="chunked"), *[chunk] * 20)

    assert (status, problem["code"]) == (413, "body_too_large")


async def test_a_body_that_is_shorter_than_announced_is_no_body(door: Door) -> None:
    reader, writer = await asyncio.open_connection(door.host, door.port)
    writer.write(door.head(content_length=1000) + b"{")
    await writer.drain()
    writer.close()
    await writer.wait_closed()
    assert await reader.read() == b""

    status, _ = await door.submit(JSON, a_body())

    assert status == 201


async def test_what_is_longer_than_announced_is_no_request(door: Door) -> None:
    status, _ = await door.send(door.head(content_length=10), a_body())

    assert status == 400


@pytest.mark.parametrize(
    "head",
    [
        b"POST /api/v1/work HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n{}",
        b"POST /api/v1/work HTTP/1.1\r\ncontent-length: -1\r\n\r\n{}",
        b"POST /api/v1/work HTTP/1.1\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n{}",
        b"GET /api/v1/work HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET /api/v1/work\0 HTTP/1.1\r\n\r\n",
        b"HACK /api/v1/work HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00",
        # Two readings of one message: what hides a request in another's body.
        *(
            b"POST /api/v1/work HTTP/1.1\r\n" + lines + b"\r\n\r\n0\r\n\r\n"
            for lines in (
                b"transfer-encoding: chunked\r\ncontent-length: 5",
                b"transfer-encoding: chunked, identity",
                b"transfer-encoding: xchunked",
                b"transfer-encoding: identity",
                b"transfer-encoding : chunked",
                b" transfer-encoding: chunked",
                b"transfer-encoding:\x0bchunked",
                b"transfer-encoding: chunked\r\ntransfer-encoding: identity",
                b"content-length: 5\r\ncontent-length: 5",
                b"content-length: 5, 5",
                b"content-length: +5",
                b"content-length: 0x5",
                b"content-length: 5 5",
                b"content-length: \xb2",
                b"content-length: " + b"9" * 40,
                b"x: y\ncontent-length: 5",
                b"x: y\rcontent-length: 5",
                b"x: a\0b",
            )
        ),
        *(
            b"POST /api/v1/work HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n" + chunk
            for chunk in (
                b"-1\r\nx\r\n",
                b"0x1\r\nx\r\n",
                b"1 \r\nx\r\n",
                b"1\nx\n0\n\n",
                b"1\r\nxy\r\n",
                b"f" * 17 + b"\r\n",
            )
        ),
    ],
)
async def test_what_is_no_request_is_refused_before_anybody_reads_it(
    door: Door, head: bytes
) -> None:
    status, _ = await door.send(head.replace(b"HTTP/1.1\r\n", b"HTTP/1.1\r\nhost: broker\r\n", 1))

    assert status == 400


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"GET /healthz HTTP/1.1\r\n", 400),
        (b"GET /healthz HTTP/1.1\r\nhost: a\r\nhost: a\r\n", 400),
        (b"GET /healthz HTTP/1.1\r\nhost: a, b\r\n", 400),
        (b"GET /healthz HTTP/1.1\r\nhost: a/b\r\n", 400),
        (b"GET /healthz HTTP/1.1\r\nhost: u@a\r\n", 400),
        (b"GET /healthz HTTP/1.1\r\nhost: a\xff\r\n", 400),
        (b"GET /healthz HTTP/1.1\r\nhost:\r\n", 200),
        (b"GET /healthz HTTP/1.1\r\nhost: [::1]:3000\r\n", 200),
        (b"GET /healthz HTTP/1.0\r\n", 200),
        (b"GET /healthz HTTP/1.0\r\nhost: a\r\nhost: b\r\n", 400),
        (b"GET http://elsewhere/healthz HTTP/1.1\r\nhost: a\r\n", 200),
        (b"OPTIONS * HTTP/1.1\r\nhost: a\r\n", 404),
        (b"CONNECT a:80 HTTP/1.1\r\nhost: a\r\n", 400),
        (b"GET http://elsewhere HTTP/1.1\r\nhost: a\r\n", 400),
        (b"POST /api/v1/work HTTP/1.1\r\nhost: a\r\ntransfer-encoding: gzip, chunked\r\n", 400),
        (b"POST /api/v1/work HTTP/1.0\r\nhost: a\r\ntransfer-encoding: chunked\r\n", 400),
    ],
)
async def test_a_head_says_one_host_and_one_way_to_read_on(
    door: Door, head: bytes, status: int
) -> None:
    assert (await door.send(head + b"\r\n"))[0] == status


@pytest.mark.parametrize("more", [{}, {"connection": "close"}])
async def test_who_sends_too_much_still_reads_why(door: Door, more: dict[str, str]) -> None:
    """A client that sends all before it reads, as many do."""

    def send() -> bytes:
        with socket.create_connection((door.host, door.port), timeout=20) as client:
            client.sendall(door.head(content_length=30 * MIB, **more))
            for _ in range(30):
                client.sendall(b"x" * MIB)
            return client.recv(100)

    assert (await asyncio.to_thread(send)).startswith(b"HTTP/1.1 413 ")


async def test_who_sends_a_head_without_end_still_reads_why(door: Door) -> None:
    def send() -> bytes:
        with socket.create_connection((door.host, door.port), timeout=20) as client:
            client.sendall(b"GET / HTTP/1.1\r\nx: " + b"x" * (2 * MIB))
            return client.recv(100)

    assert (await asyncio.to_thread(send)).startswith(b"HTTP/1.1 431 ")


async def test_what_follows_an_early_answer_is_read_for_a_while_only(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "LINGER_SECONDS", 0.3)
    head = door.head(content_length=30 * MIB, connection="close")
    reader, writer = await asyncio.open_connection(door.host, door.port)
    writer.write(head)

    assert (await reader.read()).startswith(b"HTTP/1.1 413 ")
    await door.is_left_alone()  # though this client has not closed
    writer.close()


async def test_an_answer_that_spares_the_body_ends_the_connection(door: Door) -> None:
    head = door.head(content_length=30 * MIB, expect="100-continue")
    reader, writer = await asyncio.open_connection(door.host, door.port)
    writer.write(head)

    answer = await reader.read()
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"connection: close" in answer.lower()
    writer.close()


@pytest.mark.parametrize(
    ("first", "more"),
    [
        pytest.param(b"GET / HTTP/1.1\r\nx: ", b"x" * 1000, id="one header"),
        pytest.param(b"GET / HTTP/1.1\r\n", b"x: " + b"x" * 500 + b"\r\n", id="many headers"),
        pytest.param(b"GET /", b"x" * 1000, id="the address"),
    ],
)
async def test_a_head_without_end_is_cut_off(door: Door, first: bytes, more: bytes) -> None:
    assert await door.takes(first, more) < 10 * MIB


async def test_trailers_without_end_are_cut_off(door: Door) -> None:
    first = door.head(transfer_encoding="chunked") + b"2\r\n{}\r\n0\r\n"

    assert await door.takes(first, b"x: " + b"x" * 500 + b"\r\n") < 10 * MIB


@pytest.fixture
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the broker wait for a moment where it waits for half a minute."""
    monkeypatch.setattr("brokkr.broker.api.connection.HEAD_SECONDS", 0.3)


@pytest.mark.parametrize(
    "first",
    [
        pytest.param(b"", id="nothing at all"),
        pytest.param(b"GET /healthz HTTP/1.1\r\n", id="a head"),
        pytest.param(b"GET /healthz HTTP/1.1\r\n\r\nGET /", id="the next head"),
        pytest.param(b"POST / HTTP/1.1\r\ncontent-length: 99999\r\n\r\n", id="a refused body"),
    ],
)
async def test_who_sends_a_request_byte_by_byte_is_not_waited_for(
    door: Door, hurry: None, first: bytes
) -> None:
    reader, writer = await asyncio.open_connection(door.host, door.port)
    writer.write(first)

    async def drip() -> None:
        while first:
            await asyncio.sleep(0.02)
            writer.write(b"x")

    dripping = asyncio.create_task(drip())
    with suppress(ConnectionError):
        while await reader.read(MIB):
            pass
    dripping.cancel()
    writer.close()

    await door.is_left_alone()


async def test_to_take_long_for_an_answer_is_not_to_be_slow(door: Door, hurry: None) -> None:
    door.key = await door.an_agents_key()

    status, _ = await door.send(door.head("GET", "/api/v1/agents/self/work/pending?wait=1"))

    assert status == 200


async def test_an_answer_that_nobody_reads_is_not_kept(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("brokkr.broker.app._UNREAD_SECONDS", 1)
    async with serving(BrokerSettings(), database_url) as app:
        host, _, port = app.url.removeprefix("http://").partition(":")
        for listener in app.server.servers[0].sockets:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            client.connect((host, int(port)))
            client.sendall(b"GET /api/v1/openapi.json HTTP/1.1\r\nconnection: close\r\n\r\n")
            door = Door(app.url, "", app.server)
            await door.is_visited()

            await door.is_left_alone()


async def test_requests_that_are_sent_ahead_are_answered_in_their_order(door: Door) -> None:
    reader, writer = await asyncio.open_connection(door.host, door.port)
    paths = ["/healthz", "/nowhere", "/readyz", "/healthz"]
    writer.write(b"".join(door.head("GET", each) for each in paths[:-1]))
    writer.write(door.head("GET", paths[-1], connection="close"))
    answers = (await reader.read()).split(b"HTTP/1.1 ")[1:]
    writer.close()

    assert [int(each[:3]) for each in answers] == [200, 404, 200, 200]


@pytest.mark.parametrize("reads", [True, False], ids=["and read", "and not read"])
async def test_who_sends_requests_without_end_ahead_is_cut_off(door: Door, *, reads: bool) -> None:
    more = door.head("GET", "/healthz") * 500

    assert await door.takes(b"", more, reads=reads) < 10 * MIB


async def test_what_follows_the_last_request_of_a_connection_is_not_served(door: Door) -> None:
    reader, writer = await asyncio.open_connection(door.host, door.port)
    _, before = await door.send(door.head("GET", "/api/v1/work?limit=1"))
    submission = a_body()
    last = door.head("GET", "/healthz", connection="close")
    writer.write(last + door.head(content_length=len(submission)) + submission)
    answers = await reader.read()
    writer.close()
    _, after = await door.send(door.head("GET", "/api/v1/work?limit=1"))

    assert answers.count(b"HTTP/1.1 ") == 1
    assert after["items"] == before["items"]


async def test_in_the_middle_of_an_answer_nonsense_ends_it_and_is_not_answered(door: Door) -> None:
    _, work = await door.submit(JSON, a_body())
    reader, writer = await asyncio.open_connection(door.host, door.port)
    writer.write(door.head("GET", f"/api/v1/work/{work['id']}/events?follow=true"))
    answer = await reader.readuntil(b"submitted")
    writer.write(b"\0\0\0\r\n\r\n")
    answer += await reader.read()
    writer.close()

    assert answer.count(b"HTTP/1.1 ") == 1


async def test_others_are_answered_among_many_who_say_nothing(door: Door) -> None:
    silent = [await asyncio.open_connection(door.host, door.port) for _ in range(SILENT)]
    status, _ = await door.submit(JSON, a_body())
    for _, writer in silent:
        writer.close()

    assert status == 201


async def test_a_head_that_is_too_long_is_told_so(door: Door) -> None:
    status, _ = await door.send(b"GET / HTTP/1.1\r\nx: " + b"x" * (MAX_HEAD_BYTES + 10))

    assert status == 431


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("PUT", "/api/v1/work", 405),
        ("TRACE", "/api/v1/work", 405),
        ("PATCH", "/api/v1/work", 405),
        ("POST", "/healthz", 405),
        ("GET", "/api/v1/agents/%00", 404),
        ("DELETE", "/api/v1/agents/a%00b", 404),
        ("GET", "/api/v1/generators/%00", 404),
        ("DELETE", "/api/v1/keys/%00", 404),
        ("GET", "/api/v1/work/%00", 404),
        ("GET", "/api/v1/agents/%FF%FE", 404),
        ("GET", "/api/v1/agents/" + "x" * 10_000, 404),
        ("GET", "/api/v1/agents?cursor=%00", 422),
        ("GET", "/api/v1/agents?cursor=%FF", 200),
        ("GET", "/api/v1/work?type=%00", 422),
        ("GET", "/api/v1/work?limit=" + "9" * 5000, 422),
        ("GET", "/api/v1/work?limit=nan", 422),
        ("GET", "/api/v1/work?since=0001-01-01T00:00:00%2B14:00", 422),
        ("GET", "/api/v1/work?since=9999-12-31T23:59:59-14:00", 422),
        ("GET", "/api/v1/work?since=" + "9" * 400, 422),
        ("GET", "/api/v1/work?" + "status=LOST&" * 4000, 422),
        ("GET", "/api/v1/keys?cursor=%00", 422),
        ("GET", "/api/v1/../../etc/passwd", 404),
    ],
)
async def test_strange_addresses_and_methods_are_refused(
    door: Door, method: str, path: str, status: int
) -> None:
    assert (await door.send(door.head(method, path)))[0] == status


@pytest.mark.parametrize("wait", ["nan", "inf", "-1", "61", "1e999"])
async def test_nobody_waits_for_ever(door: Door, wait: str) -> None:
    door.key = await door.an_agents_key()

    status, _ = await door.send(door.head("GET", f"/api/v1/agents/self/work/pending?wait={wait}"))

    assert status == 422
