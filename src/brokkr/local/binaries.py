"""
Get hold of the programs that local mode runs.

Most are in Debian's packages, which are installed when we may, or unpacked into the user's
cache.  The two servers of Kubernetes are in nobody's packages: they are found, or compiled
once and cached.
"""

# Note [Where Kubernetes comes from]
#
# In this order: the folder KUBEBUILDER_ASSETS (the convention of controller tests), PATH,
# the user's cache folder, and else compiled into that folder from Debian 12's own source
# package, whose 1.20 is the last that carries the servers.  Two runs at once do not both
# compile: the second waits for the first one's lock.  The compiler works in a folder
# beside the cache, and programs enter the cache by rename; so a run that is killed leaves
# only that folder, which the next run removes.

import asyncio
import fcntl
import os
import platform
import pwd
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Final

PACKAGES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "buildah": "buildah",
        "busybox": "busybox-static",
        "docker-registry": "docker-registry",
        "dpkg-source": "dpkg-dev",
        "etcd": "etcd-server",
        "gcc": "gcc",
        "git": "git",
        "go": "golang-go",
        "jq": "jq",
        "make": "make",
        "openssl": "openssl",
        "rsync": "rsync",
        "skopeo": "skopeo",
    }
)
"""The Debian package of each program that we may need."""

UNPACKED: Final = frozenset({"busybox", "docker-registry", "etcd"})
"""Programs that are taken out of their packages, which are not installed.

Two of these packages would start a service and leave it running, and the third would
replace the machine's own busybox.
"""

_API_SERVER: Final = "kube-apiserver"
_CONTROLLER_MANAGER: Final = "kube-controller-manager"
_COMPILER: Final = frozenset({"dpkg-source", "gcc", "go", "jq", "make", "rsync"})
_SCRIPT: Final = Path(__file__).with_name("compile_kubernetes.sh")
_USUALLY: Final = "about 5 minutes on 2 cores, once"
_INTERPRETER: Final = b"/ld-linux"
_SIGN_OF_LIFE: Final = timedelta(seconds=30)
_LOCK_POLL_SECONDS: Final = 0.5

Say = Callable[[str], None]


class ProgramsMissing(Exception):
    """Programs are not here and cannot be had; the message says what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KubernetesPrograms:
    """What a control plane is made of."""

    etcd: Path
    api_server: Path
    controller_manager: Path


async def kubernetes_programs(say: Say) -> KubernetesPrograms:
    """
    Find etcd and the servers of Kubernetes; install and compile what is missing.

    Args:
        say: Told, in whole lines, about what takes long.

    Raises:
        ProgramsMissing: They are not here, and this machine cannot make them.
    """
    needed = {"etcd"}
    if must_compile := not _has_servers():
        _check_can_compile(platform.freedesktop_os_release())
        needed |= _COMPILER
    etcd = (await ensure_programs(needed, say))["etcd"]
    if must_compile:
        await _compile(say)
    return KubernetesPrograms(
        etcd=etcd,
        api_server=program_path(_API_SERVER),
        controller_manager=program_path(_CONTROLLER_MANAGER),
    )


async def ensure_programs(programs: Iterable[str], say: Say) -> dict[str, Path]:
    """
    Return where each program is; install the packages of those that are missing.

    Args:
        programs: Keys of :data:`PACKAGES`.
        say: Told, in whole lines, about what takes long.

    Raises:
        ProgramsMissing: Some are not here, and we may not or cannot install them.
    """
    wanted = sorted(programs)
    if missing := [each for each in wanted if _find(each) is None]:
        await _install(missing, say)
    return {each: program_path(each) for each in wanted}


def cache_folder() -> Path:
    """Return where compiled programs are kept."""
    return _cache() / "kubernetes-1.20.2"


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "brokkr")


def _unpacked_folder() -> Path:
    return _cache() / "programs"


def _find(program: str) -> Path | None:
    for folders in (
        os.environ.get("KUBEBUILDER_ASSETS"),
        os.environ.get("PATH"),
        str(cache_folder()),
        str(_unpacked_folder()),
    ):
        found = shutil.which(program, path=folders) if folders else None
        # An image with nothing else in it cannot run a busybox that wants a libc.
        if found and not (program == "busybox" and _INTERPRETER in Path(found).read_bytes()):
            return Path(found)
    return None


def program_path(program: str) -> Path:
    """
    Return where a program is that :func:`ensure_programs` has been asked for before.

    Raises:
        ProgramsMissing: It is not here.
    """
    path = _find(program)
    if path is None:
        raise ProgramsMissing(f"{program} is not here, though it should have been installed")
    return path


async def _install(missing: list[str], say: Say) -> None:
    packages = sorted({PACKAGES[each] for each in missing})
    if shutil.which("apt-get") is None:
        raise ProgramsMissing(
            f"not found: {', '.join(missing)}.  Install them; Debian's packages with them are "
            f"called {', '.join(packages)}"
        )
    to_install = sorted({PACKAGES[each] for each in missing if each not in UNPACKED})
    command = ["install", "--yes", "--no-install-recommends", *to_install]
    if to_install and os.geteuid() != 0:
        raise ProgramsMissing(
            f"not found: {', '.join(missing)}.  Install them with: sudo apt-get {' '.join(command)}"
        )
    say(f"getting Debian packages: {' '.join(packages)} (less than a minute)")
    if os.geteuid() == 0:
        await _run("apt-get", "update")
    if to_install:
        # Another run of ours may be installing, too: then wait for it.
        await _run("apt-get", "-o", "DPkg::Lock::Timeout=300", *command)
    for program in (each for each in missing if each in UNPACKED):
        await _unpack(program)


async def _unpack(program: str) -> None:
    """Take one program out of its package; it comes to its place by rename."""
    folder = _unpacked_folder()
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        # The user that apt would download as cannot write into our folder.
        await _run(
            *("apt-get", "-o", f"APT::Sandbox::User={pwd.getpwuid(os.geteuid()).pw_name}"),
            *("download", PACKAGES[program]),
            cwd=Path(scratch),
        )
        (package,) = await asyncio.to_thread(os.listdir, scratch)
        await _run("dpkg-deb", "-x", package, "package", cwd=Path(scratch))
        await asyncio.to_thread(_take_out, program, Path(scratch, "package"), folder)


def _take_out(program: str, package: Path, folder: Path) -> None:
    found = (each for each in package.rglob(f"bin/{program}") if not each.is_symlink())
    next(found).rename(folder / program)


async def _run(*command: str, cwd: Path | None = None) -> None:
    with tempfile.TemporaryFile() as output:
        # Neither Ctrl-C nor our death may stop it half-way: it would leave dpkg broken.
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=os.environ | {"DEBIAN_FRONTEND": "noninteractive"},
            start_new_session=True,
            cwd=cwd,
        )
        if await process.wait() != 0:
            output.seek(0)
            end = _last_lines(output.read())
            raise ProgramsMissing(f"{' '.join(command)} failed:\n{end}")


def _has_servers() -> bool:
    return bool(_find(_API_SERVER) and _find(_CONTROLLER_MANAGER))


def _check_can_compile(os_release: Mapping[str, str]) -> None:
    if (os_release.get("ID"), os_release.get("VERSION_ID")) == ("debian", "12"):
        return
    here = os_release.get("PRETTY_NAME", "this system")
    raise ProgramsMissing(
        f"{_API_SERVER} and {_CONTROLLER_MANAGER} are not here, and can be compiled on Debian 12 "
        f"only; this is {here}.  Put both, of one release, into a folder with etcd and set "
        "KUBEBUILDER_ASSETS to it"
    )


async def _compile(say: Say) -> None:
    """Put the two servers into the cache, unless another run does while we wait for it."""
    cache = cache_folder()
    cache.mkdir(parents=True, exist_ok=True)
    async with _locked(cache / ".lock", say):
        if _has_servers():
            return
        say(
            f"compiling {_API_SERVER} and {_CONTROLLER_MANAGER} from Debian's source package: "
            f"{_USUALLY}; they are kept in {cache}"
        )
        scratch, log = cache / ".compile", cache / "compile.log"
        await asyncio.to_thread(shutil.rmtree, scratch, ignore_errors=True)
        try:
            code = await _run_script(scratch, cache, log, say)
        finally:
            await asyncio.to_thread(shutil.rmtree, scratch, ignore_errors=True)
        if code != 0:
            end = _last_lines(log.read_bytes())
            raise ProgramsMissing(f"compiling Kubernetes failed; the end of {log}:\n{end}")
        log.unlink()


@asynccontextmanager
async def _locked(path: Path, say: Say) -> AsyncIterator[None]:
    """Hold a lock that the kernel gives back when we die."""
    with path.open("w") as file:
        has_said = False
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not has_said:
                    say(f"another run is compiling Kubernetes; waiting for it ({_USUALLY})")
                    has_said = True
                await asyncio.sleep(_LOCK_POLL_SECONDS)
        yield


async def _run_script(scratch: Path, cache: Path, log: Path, say: Say) -> int:
    """Run it, and pass its steps on; the whole output goes to the log."""
    started_at = time.monotonic()
    process = await asyncio.create_subprocess_exec(
        *("/bin/sh", _SCRIPT, scratch, cache),
        # The script ends, with all that it started, when this pipe is closed.
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        limit=2**20,
        start_new_session=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    step = "starting"
    try:
        with log.open("wb") as file:
            while (line := await _line(process.stdout)) != b"":
                file.write(line or b"")
                if line is not None and not line.startswith(b"step "):
                    continue
                step = step if line is None else line.decode().strip()
                minutes, seconds = divmod(int(time.monotonic() - started_at), 60)
                say(f"  {step} ({minutes}:{seconds:02} so far)")
        return await process.wait()
    finally:
        process.stdin.close()
        await process.wait()


async def _line(output: asyncio.StreamReader) -> bytes | None:
    """Return the next line; None when there was none for a while."""
    try:
        async with asyncio.timeout(_SIGN_OF_LIFE.total_seconds()):
            return await output.readline()
    except TimeoutError:
        return None


def _last_lines(output: bytes) -> str:
    return "\n".join(output.decode(errors="replace").splitlines()[-15:])
