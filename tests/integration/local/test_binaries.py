"""How a compilation goes, with a script in the compiler's place that takes no time."""

import asyncio
import os
import shutil
import sys
from asyncio.subprocess import PIPE
from collections.abc import Callable
from pathlib import Path

import pytest

from brokkr.local import binaries
from brokkr.local.binaries import (
    ProgramsMissing,
    cache_folder,
    ensure_programs,
    kubernetes_programs,
)
from support.signals import eventually

SUCCEED = """
echo run >>"$2/runs"
mkdir -p "$1"
echo "step 1/4: fetch the source package"
echo "noise"
for program in kube-apiserver kube-controller-manager; do
    printf '#!/bin/sh' >"$2/$program"
    chmod +x "$2/$program"
done
"""

FAIL = """
mkdir -p "$1"
echo "step 2/4: generate code"
echo "oh no" >&2
exit 1
"""

PARENT = """
import asyncio, sys
from pathlib import Path
from brokkr.local import binaries
binaries._SCRIPT = Path(sys.argv[1])
binaries._COMPILER = frozenset()
binaries._check_can_compile = lambda os_release: None
asyncio.run(binaries.kubernetes_programs(lambda line: print(line, flush=True)))
"""


@pytest.fixture
def compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Put a script in the compiler's place, on a Debian 12 without Kubernetes."""
    bin_folder = tmp_path / "bin"
    bin_folder.mkdir()
    for program in ("etcd", *binaries._COMPILER):
        (bin_folder / program).write_text("#!/bin/sh\n")
        (bin_folder / program).chmod(0o755)
    debian = {"ID": "debian", "VERSION_ID": "12"}
    monkeypatch.setattr("platform.freedesktop_os_release", lambda: debian)
    monkeypatch.setenv("PATH", f"{bin_folder}:/usr/bin:/bin")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("KUBEBUILDER_ASSETS", raising=False)

    def use(script: str) -> Path:
        path = tmp_path / "script.sh"
        path.write_text(script)
        monkeypatch.setattr(binaries, "_SCRIPT", path)
        return path

    return use


async def has_ended(pid: str) -> bool:
    """Say whether nothing is left of a process but perhaps its exit code."""
    return not _command_line(pid)


async def test_what_is_compiled_is_cached_and_the_steps_are_told(
    compiler: Callable[[str], Path],
) -> None:
    compiler(SUCCEED)
    said: list[str] = []

    found = await kubernetes_programs(said.append)
    again = await kubernetes_programs(said.append)

    assert found == again
    assert found.api_server == cache_folder() / "kube-apiserver"
    assert str(cache_folder()) in said[0]
    assert "5 minutes" in said[0]
    assert said[1:] == ["  step 1/4: fetch the source package (0:00 so far)"]
    assert not (cache_folder() / ".compile").exists()


async def test_of_two_runs_at_once_one_compiles_and_the_other_waits(
    compiler: Callable[[str], Path],
) -> None:
    compiler(SUCCEED)
    said: list[str] = []

    first, second = await asyncio.gather(
        kubernetes_programs(said.append), kubernetes_programs(said.append)
    )

    assert first == second
    assert (cache_folder() / "runs").read_text() == "run\n"
    assert len([line for line in said if "waiting" in line]) == 1


async def test_a_failure_keeps_its_log_and_names_it(compiler: Callable[[str], Path]) -> None:
    compiler(FAIL)

    with pytest.raises(ProgramsMissing, match=r"(?s)compile\.log.*oh no") as caught:
        await kubernetes_programs(lambda _: None)

    log = cache_folder() / "compile.log"
    assert str(log) in str(caught.value)
    assert "oh no" in log.read_text()
    assert not (cache_folder() / ".compile").exists()


async def test_a_killed_run_stops_its_compiler_and_the_next_one_starts_over(
    compiler: Callable[[str], Path],
) -> None:
    real = binaries._SCRIPT.read_text()
    watching = real[real.index("set -eu") : real.index("work=$1")]
    script = compiler(
        f'{watching}\nmkdir -p "$1"\nsleep 600 &\necho $! >"$1/pid"\necho "step 1/4"\nwait\n'
    )
    parent = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", PARENT, script), stdout=asyncio.subprocess.PIPE, env=os.environ
    )
    assert parent.stdout is not None
    while b"step 1/4" not in await parent.stdout.readline():
        pass
    grandchild = (cache_folder() / ".compile" / "pid").read_text().strip()
    assert not await has_ended(grandchild)

    parent.kill()
    await parent.wait()

    await eventually(lambda: has_ended(grandchild))
    compiler(SUCCEED)
    await kubernetes_programs(lambda _: None)
    assert not (cache_folder() / ".compile").exists()


def _command_line(pid: str) -> bytes:
    try:
        return Path("/proc", pid, "cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


async def test_what_would_start_a_service_is_only_taken_out_of_its_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With Debian's real packages; they are downloaded."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("KUBEBUILDER_ASSETS", raising=False)
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("apt-get", "dpkg-deb", "tar", "rm"):
        real = shutil.which(name)
        assert real is not None
        (tools / name).symlink_to(real)
    monkeypatch.setenv("PATH", str(tools))

    found = await ensure_programs(binaries.UNPACKED, print)

    assert set(found.values()) == {tmp_path / "brokkr/programs" / name for name in found}
    for path in found.values():
        process = await asyncio.create_subprocess_exec(path, "--help", stdout=PIPE, stderr=PIPE)
        assert any("usage" in each.decode().lower() for each in await process.communicate())
