"""A log that cannot be written costs lines, and nothing else."""

import fcntl
import os
import resource
import select
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from threading import Thread
from time import monotonic

import pytest

from brokkr.log_output import LogOutput


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reading, writing = os.pipe()
    yield reading, writing
    for each in (reading, writing):
        with suppress(OSError):
            os.close(each)


def test_a_line_is_written_as_it_is(pipe: tuple[int, int]) -> None:
    output = LogOutput(pipe[1])

    output.write("grüße \ud800\n")

    assert os.read(pipe[0], 100) == "grüße \\ud800\n".encode()
    assert output.lost == 0


def test_a_full_disk_costs_the_line() -> None:
    descriptor = os.open("/dev/full", os.O_WRONLY)
    output = LogOutput(descriptor)

    for _ in range(3):
        output.write("line\n")
    os.close(descriptor)

    assert output.lost == 3


def test_nobody_at_the_other_end_costs_the_line(pipe: tuple[int, int]) -> None:
    output = LogOutput(pipe[1])
    os.close(pipe[0])

    output.write("line\n")

    assert output.lost == 1


def test_a_closed_descriptor_costs_the_line(pipe: tuple[int, int]) -> None:
    output = LogOutput(pipe[1])
    os.close(pipe[1])

    output.write("line\n")

    assert output.lost == 1


def test_a_reader_that_does_not_read_costs_lines_and_no_time(pipe: tuple[int, int]) -> None:
    output = LogOutput(pipe[1])
    room = fcntl.fcntl(pipe[1], fcntl.F_GETPIPE_SZ)
    began = monotonic()

    for _ in range(2 * room // 1000):
        output.write("x" * 999 + "\n")

    assert output.lost > 0
    assert monotonic() - began < 1
    took = os.read(pipe[0], room)
    assert set(took.splitlines()) == {b"x" * 999}
    output.write("again\n")
    assert os.read(pipe[0], room).endswith(b"again\n")
    assert output.lately_lost == 0


def test_a_slow_reader_gets_a_line_that_is_longer_than_the_pipe(pipe: tuple[int, int]) -> None:
    output = LogOutput(pipe[1])
    line = "x" * (4 * fcntl.fcntl(pipe[1], fcntl.F_GETPIPE_SZ)) + "\n"
    took = bytearray()

    def read() -> None:
        while len(took) < len(line):
            took.extend(os.read(pipe[0], 1000))

    reader = Thread(target=read)
    reader.start()
    output.write(line)
    reader.join(10)

    assert took.decode() == line
    assert output.lost == 0


def test_what_was_torn_does_not_spoil_the_next_line(pipe: tuple[int, int]) -> None:
    output = LogOutput(pipe[1])
    room = fcntl.fcntl(pipe[1], fcntl.F_GETPIPE_SZ)

    output.write("x" * (room + select.PIPE_BUF) + "\n")
    assert output.lately_lost == 1
    os.read(pipe[0], room)
    output.write("whole\n")

    assert os.read(pipe[0], room).splitlines()[-1] == b"whole"


def test_a_file_that_may_grow_again_is_written_again(tmp_path: Path) -> None:
    descriptor = os.open(tmp_path / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    output = LogOutput(descriptor)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5, before[1]))
    try:
        output.write("a line that is too long\n")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    output.write("the next\n")
    os.close(descriptor)

    assert (tmp_path / "log").read_text() == "a lin\nthe next\n"
    assert output.lost == 1


def test_lines_of_many_threads_stay_whole(pipe: tuple[int, int]) -> None:
    output = LogOutput(pipe[1])

    def write(name: str) -> None:
        for _ in range(20):
            output.write(name * 50 + "\n")

    writers = [Thread(target=write, args=(name,)) for name in "abcdef"]
    for each in writers:
        each.start()
    for each in writers:
        each.join()

    lines = os.read(pipe[0], 65536).decode().splitlines()
    assert {len(set(line)) for line in lines} == {1}
    assert len(lines) == 120
