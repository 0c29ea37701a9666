"""How it went, as an exit code and a line."""

import asyncio
import os
import signal
from collections.abc import Iterator

import pytest
import typer

from brokkr.cli.run import run
from brokkr.configuration import InvalidConfiguration
from brokkr.work.errors import (
    AgentNotFound,
    BrokerUnavailable,
    BrokkrError,
    InvalidWork,
    MalformedBody,
    NotPermitted,
    Unauthenticated,
    WorkFinished,
)


async def fail_with(error: BaseException) -> None:
    raise error


def exit_code(error: BaseException) -> int:
    with pytest.raises(typer.Exit) as caught:
        run(fail_with(error))
    return caught.value.exit_code


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (WorkFinished("w", "succeeded"), 1),
        (InvalidWork("target", "is empty"), 2),
        (MalformedBody("x"), 2),
        (InvalidConfiguration(["x"]), 2),
        (BrokerUnavailable("x"), 3),
        (BrokkrError("something new"), 3),
        (Unauthenticated("x"), 4),
        (NotPermitted("x"), 4),
        (AgentNotFound("edge"), 5),
        (KeyboardInterrupt(), 130),
    ],
    ids=lambda value: type(value).__name__,
)
def test_each_kind_of_error_has_its_exit_code(error: BaseException, code: int) -> None:
    assert exit_code(error) == code


def test_an_error_is_one_line_on_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    exit_code(InvalidWork("target", "is empty"))

    assert capsys.readouterr() == ("", "error: target: is empty\n")


def test_each_problem_of_the_configuration_has_its_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    exit_code(InvalidConfiguration(["one", "two"]))

    assert capsys.readouterr().err == "error: one\nerror: two\n"


def test_a_missing_key_comes_with_a_hint(capsys: pytest.CaptureFixture[str]) -> None:
    exit_code(Unauthenticated("no key was given"))

    assert "hint: a key comes from --key, BROKKR_KEY" in capsys.readouterr().err


@pytest.fixture(params=[signal.default_int_handler, signal.SIG_IGN], ids=["heard", "ignored"])
def sigint(request: pytest.FixtureRequest) -> Iterator[None]:
    """What a process in a terminal makes of Ctrl-C, and one that was started in the background."""
    before = signal.signal(signal.SIGINT, request.param)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("sigint")
def test_sigterm_stops_the_work_in_order_as_ctrl_c_does() -> None:
    steps = []
    before = signal.getsignal(signal.SIGTERM)

    async def work() -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            await asyncio.sleep(60)
        finally:
            steps.append("cleaned up")

    with pytest.raises(typer.Exit) as caught:
        run(work())

    assert caught.value.exit_code == 130
    assert steps == ["cleaned up"]
    assert signal.getsignal(signal.SIGTERM) is before


def test_what_the_work_returns_is_returned() -> None:
    async def work() -> int:
        return 7

    assert run(work()) == 7
