"""
Run what a command does, and turn how it went into an exit code.

The only place that knows exit codes and what an error looks like on the terminal.
"""

import asyncio
import signal
from collections.abc import Callable, Coroutine, Mapping
from types import FrameType, MappingProxyType
from typing import Any, Final, NoReturn, TypeVar

import typer

from brokkr.cli.output import say
from brokkr.configuration import InvalidConfiguration
from brokkr.work.errors import (
    BodyTooLarge,
    BrokerUnavailable,
    BrokkrError,
    Conflict,
    DatabaseUnavailable,
    InvalidInput,
    LimitReached,
    MalformedBody,
    NotFound,
    NotPermitted,
    Unauthenticated,
)
from brokkr.work.redaction import redact

EXIT_CODES: Final[Mapping[type[BrokkrError], int]] = MappingProxyType(
    {
        Conflict: 1,
        LimitReached: 1,
        InvalidInput: 2,
        MalformedBody: 2,
        BodyTooLarge: 2,
        InvalidConfiguration: 2,
        BrokkrError: 3,
        Unauthenticated: 4,
        NotPermitted: 4,
        NotFound: 5,
    }
)
"""The exit code of each branch of the tree; a leaf has its parent's."""

HINTS: Final[Mapping[type[BrokkrError], str]] = MappingProxyType(
    {
        Unauthenticated: "a key comes from --key, BROKKR_KEY, or key in [client] of brokkr.toml",
        BrokerUnavailable: "its address comes from --url, BROKKR_URL, or url in [client] of "
        "brokkr.toml",
        DatabaseUnavailable: "where the broker looks for it comes from --database-url, or url in "
        "[database] of brokkr.toml",
    }
)

_T = TypeVar("_T")


def run(
    work: Coroutine[Any, Any, _T],
    *,
    loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None,
) -> _T:
    """
    Run a command's work to its end; SIGTERM stops it as Ctrl-C does.

    Raises:
        typer.Exit: It was stopped, or it failed; the error has been printed.
    """
    try:
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            return runner.run(_stopped_by_sigterm(work))
    except BrokkrError as error:
        fail(error)
    except (KeyboardInterrupt, _Stopped):
        raise typer.Exit(130) from None


def fail(error: BrokkrError) -> NoReturn:
    """
    Print what went wrong, and what may help.

    Raises:
        typer.Exit: Always, with the error's exit code.
    """
    lines = error.problems if isinstance(error, InvalidConfiguration) else [str(error)]
    for line in lines:
        say(f"error: {redact(line)}")
    kinds = type(error).__mro__
    hint = next((HINTS[kind] for kind in kinds if kind in HINTS), None)
    if hint is not None:
        say(f"hint: {hint}")
    raise typer.Exit(next(EXIT_CODES[kind] for kind in kinds if kind in EXIT_CODES))


class _Stopped(Exception):
    """SIGTERM came, and the work has cleaned up."""


async def _stopped_by_sigterm(work: Coroutine[Any, Any, _T]) -> _T:
    # Not by the runner's handler for SIGINT: there is none where that signal is ignored, as it
    # is in what a shell's script starts in the background.
    loop, task, is_told = asyncio.get_running_loop(), asyncio.current_task(), False
    assert task is not None

    def stop(_number: int, _frame: FrameType | None) -> None:
        nonlocal is_told
        is_told = True
        loop.call_soon_threadsafe(task.cancel)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        return await work
    except asyncio.CancelledError:
        if is_told:
            raise _Stopped from None
        raise
    finally:
        signal.signal(signal.SIGTERM, before)
