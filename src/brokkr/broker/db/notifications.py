"""
What the brokers on one database tell each other, with ``NOTIFY``.

One connection of each broker tells and listens, and does nothing else.  It is looked
after: what others say while it is away is lost, so its user learns when it is (again)
there.
"""

# Note [Outside every other transaction]
#
# The commits of transactions that notify wait for each other, on the whole server.  So
# nothing that changes Work notifies.  What is to be told is collected, and told by one
# statement at a time: what comes meanwhile goes into the next, at most a hundred a second
# however much is submitted.  A broker that is killed between a commit and its telling has
# told nobody.  That costs time and no Work: polls end, and look again.

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import UUID, uuid4

import asyncpg
import structlog

from brokkr.broker.db.outage import Outage
from brokkr.broker.db.pool import Connection, connect
from brokkr.broker.db.statements import fetch_all
from brokkr.work.errors import DatabaseUnavailable

CHANNEL: Final = "brokkr"

_PAUSE_SECONDS = 0.01
_CHECK_SECONDS = 15
_PATIENCE_SECONDS = 5
_RECONNECT_SECONDS = 1
_PER_PAYLOAD = 80
"""So many of each are less than 8000 bytes, all kinds together."""

_log = structlog.get_logger()


@dataclass(slots=True)
class News:
    """What one broker has to tell the others.

    Attributes:
        works: How many Works can be claimed, by the id of their selector.
        agents: Who may have gained or lost Work.
        resting: The selectors that are no lanes any more.
        keys: The short ids of keys that open nothing any more.
    """

    works: Counter[int] = field(default_factory=Counter)
    agents: set[UUID] = field(default_factory=set)
    resting: set[int] = field(default_factory=set)
    keys: set[str] = field(default_factory=set)

    def __bool__(self) -> bool:
        return bool(self.works or self.agents or self.resting or self.keys)

    def add(self, other: "News") -> None:
        """Take in what another has to tell."""
        self.works.update(other.works)
        self.agents.update(other.agents)
        self.resting.update(other.resting)
        self.keys.update(other.keys)

    def render(self, sender: str) -> list[str]:
        """Write all of it, as so many payloads as it takes."""
        works, agents = list(self.works.items()), [str(each) for each in self.agents]
        more: dict[str, list[Any]] = {"resting": list(self.resting), "keys": list(self.keys)}
        longest = max(len(works), len(agents), *(len(each) for each in more.values()))
        parts = [slice(start, start + _PER_PAYLOAD) for start in range(0, longest, _PER_PAYLOAD)]
        return [
            json.dumps(
                {
                    "from": sender,
                    "works": dict(works[part]),
                    "agents": agents[part],
                    **{name: each[part] for name, each in more.items() if each[part]},
                },
                separators=(",", ":"),
            )
            for part in parts
        ]

    @classmethod
    def parse(cls, payload: str) -> tuple[str, "News"]:
        """
        Read a payload: who sent it, and what it tells.

        Raises:
            ValueError: It is nothing that :meth:`render` writes.
        """
        match told := json.loads(payload):
            case {"from": str(sender), "works": dict(works), "agents": list(agents)}:
                counts = {int(selector): int(count) for selector, count in works.items()}
                return sender, cls(
                    Counter(counts),
                    {UUID(str(each)) for each in agents},
                    {int(each) for each in told.get("resting", ())},
                    {str(each) for each in told.get("keys", ())},
                )
        raise ValueError(payload)


async def tell_revoked(db: Connection, short_ids: Collection[str]) -> None:
    """
    Tell all brokers, when this transaction commits, that keys open nothing any more.

    An exception to Note [Outside every other transaction]: it is rare, and nobody may be killed
    between the commit and the telling.
    """
    payloads = News(keys=set(short_ids)).render("")
    await fetch_all(db, "notify", channel=CHANNEL, payloads=payloads)


class Channel:
    """The connection by which a broker tells and hears."""

    def __init__(self, *, heard: Callable[[News], None], listening: Callable[[], None]) -> None:
        """
        Prepare to tell and to hear; what is told before :meth:`run` waits for it.

        Args:
            heard: Called with what another broker tells.
            listening: Called when a connection has begun to listen.
        """
        self._heard = heard
        self._listening = listening
        self._sender = uuid4().hex[:12]
        self._untold = News()
        self._busy = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()

    def tell(self, news: News) -> None:
        """Tell the other brokers, soon."""
        if news:
            self._untold.add(news)
            self._idle.clear()
            self._busy.set()

    async def until_told(self) -> None:
        """Wait until there is nothing to tell."""
        await self._idle.wait()

    async def run(self, url: str) -> None:
        """Tell and hear until cancelled, and connect again as often as it takes."""
        outage = Outage(reminds=True, connection="between brokers")
        while True:
            try:
                async with connect(url, name="brokkr-channel") as db:
                    await self._listen(db)
                    outage.end()
                    while True:
                        await self._tell(db)
                        await asyncio.sleep(_PAUSE_SECONDS)
                        await self._rest()
            except Exception as error:  # noqa: BLE001  (the next connection may do better)
                outage.note(error)
            await asyncio.sleep(_RECONNECT_SECONDS)

    async def _listen(self, db: Connection) -> None:
        def on_notification(_db: Any, _pid: int, _channel: str, payload: object) -> None:
            self._hear(str(payload))

        assert isinstance(db, asyncpg.Connection)
        # Talking to a closed connection fails, and then there is another one.
        db.add_termination_listener(lambda _db: self._busy.set())
        await db.add_listener(CHANNEL, on_notification)
        self._listening()

    async def _tell(self, db: Connection) -> None:
        """Tell what there is; if there is nothing, see whether the connection lives."""
        telling, self._untold = self._untold, News()
        self._busy.clear()
        payloads = telling.render(self._sender)
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                await fetch_all(db, "notify", channel=CHANNEL, payloads=payloads)
        except BaseException as error:
            self._untold.add(telling)  # told twice is better than never
            if isinstance(error, TimeoutError):
                raise DatabaseUnavailable("the database does not answer") from error
            raise
        if not self._untold:
            self._idle.set()

    async def _rest(self) -> None:
        """Wait until there is something to tell, or it is time to see about the connection."""
        try:
            async with asyncio.timeout(_CHECK_SECONDS):
                await self._busy.wait()
        except TimeoutError:
            return

    def _hear(self, payload: str) -> None:
        try:
            sender, news = News.parse(payload)
        except ValueError:  # of another version, while replicas are updated one by one
            _log.warning("notification not understood", payload=payload)
            return
        if sender != self._sender:
            self._heard(news)
