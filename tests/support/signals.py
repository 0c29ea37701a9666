"""Wait for facts about the world, never for time to pass."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

_T = TypeVar("_T")


async def eventually(fact: Callable[[], Awaitable[_T | None]], *, within: float = 20) -> _T:
    """Ask until the answer is a true one, and return it; give up after ``within`` seconds."""
    async with asyncio.timeout(within):
        while True:
            answer = await fact()
            if answer:
                return answer
            await asyncio.sleep(0.03)
