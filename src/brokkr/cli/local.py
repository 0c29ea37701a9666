"""``brokkr local``: the whole system on one machine."""

import asyncio
import signal
import sys
from collections.abc import Coroutine
from pathlib import Path
from time import monotonic
from typing import Annotated, Any

import typer

from brokkr.agent.kube.errors import KubeError
from brokkr.local.binaries import ProgramsMissing, ensure_programs, kubernetes_programs
from brokkr.local.credentials import Credentials
from brokkr.local.git_server import GitFailed
from brokkr.local.process import ServerFailed
from brokkr.local.up import (
    AGENT,
    CLONE_SECRET,
    NAMESPACE,
    PUSH_SECRET,
    AlreadyRunning,
    LocalSystem,
    Ports,
    local_system,
)
from brokkr.work.errors import BrokkrError

app = typer.Typer(
    name="local",
    help="Run the whole system on this machine: no cluster, no Shipwright.\n\n"
    "Everything is the real thing but for the build runner, which stands in for "
    "Shipwright and Tekton.  Data is thrown away when it stops.",
    no_args_is_help=True,
)

RUN_PROGRAMS = ("buildah", "busybox", "docker-registry", "git", "skopeo")
PORTS = Ports()
CREDENTIALS = Credentials("brokkr", "local-only")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


@app.command()
def prepare() -> None:
    """Install and compile what local mode runs, so that later starts are quick."""

    async def get_ready() -> None:
        await ensure_programs(RUN_PROGRAMS, _say)
        await kubernetes_programs(_say)

    _run(get_ready())


@app.command()
def up(  # noqa: PLR0917 - typer makes flags of them
    folder: Annotated[
        Path, typer.Option(help="For data, logs and keys; emptied at each start.")
    ] = Path(".brokkr"),
    kubeconfig: Annotated[
        Path | None,
        typer.Option(
            help="Use this cluster and its Shipwright; start no API server and no build runner."
        ),
    ] = None,
    publish: Annotated[
        list[Path] | None,
        typer.Option(help="Serve this folder as a git repository of its name. Repeatable."),
    ] = None,
    private: Annotated[
        bool, typer.Option("--private", help="Git server and registry ask for a password.")
    ] = False,
    broker_port: Annotated[int, typer.Option(help="Where the broker listens.")] = PORTS.broker,
    registry_port: Annotated[
        int, typer.Option(help="Where the registry listens.")
    ] = PORTS.registry,
    git_port: Annotated[int, typer.Option(help="Where the git server listens.")] = PORTS.git,
) -> None:
    """
    Run broker, agent, API server, registry, git server and build runner until Ctrl-C.

    A port that is taken is replaced by a free one, and said.
    """
    example = Path("examples/hello-image")
    sources = publish or ([example] if example.is_dir() else [])

    async def run() -> None:
        started = monotonic()
        _say("starting (a few seconds; the first time, programs are installed and compiled)")
        async with local_system(
            folder.absolute(),
            say=_say,
            kubeconfig=kubeconfig,
            ports=Ports(broker=broker_port, registry=registry_port, git=git_port),
            sources=[each.absolute() for each in sources],
            credentials=CREDENTIALS if private else None,
        ) as system:
            _introduce(system, [each.name for each in sources], private, monotonic() - started)
            raise await system.until_one_ends()

    _run(run())


def _introduce(system: LocalSystem, repositories: list[str], private: bool, seconds: float) -> None:
    lines = [
        f"ready after {seconds:.1f} s; Ctrl-C stops everything and throws the data away",
        "",
        f"  broker      {system.broker_url}   (API documentation: {system.broker_url}/docs)",
        f"  admin key   {system.admin_key}",
        f"  agent       {AGENT}, with the label env=local, in namespace {NAMESPACE}",
        f"  kubeconfig  {system.kubeconfig}",
        f"  registry    {system.registry}",
        f"  git         {system.git_url}",
        *(f"              {system.git_url}/{name}.git" for name in repositories),
        f"  logs        {system.folder}/*.log",
    ]
    if private:
        lines += [
            f"  password    {CREDENTIALS.user} / {CREDENTIALS.password}",
            f"              in builds: cloneSecret {CLONE_SECRET}, pushSecret {PUSH_SECRET}",
        ]
    exports = {
        "BROKKR_URL": system.broker_url,
        "BROKKR_KEY": system.admin_key,
        "KUBECONFIG": str(system.kubeconfig),
    }
    lines += ["", "in another terminal:", ""]
    lines += [f"  export {name}={value}" for name, value in exports.items()]
    lines += [
        "  brokkr work submit examples/hello-image/work.yaml --target env=local --follow",
        f"  kubectl get works -n {NAMESPACE}",
    ]
    print("\n".join(lines), flush=True)


_EXPECTED = (AlreadyRunning, ProgramsMissing, ServerFailed, GitFailed, BrokkrError, KubeError)


def _run(work: Coroutine[Any, Any, None]) -> None:
    """Run to the end, and turn what may go wrong into one line and an exit code."""
    try:
        asyncio.run(_until_stopped(work))
    except (KeyboardInterrupt, asyncio.CancelledError):
        _say("stopped")
        raise typer.Exit(130) from None
    except _EXPECTED as error:
        _say(f"error: {error}")
        raise typer.Exit(1) from None
    except BaseExceptionGroup as group:
        expected, rest = group.split(_EXPECTED)
        if rest is not None or expected is None:
            raise
        _say(f"error: {_first_of(expected)}")
        raise typer.Exit(1) from None


async def _until_stopped(work: Coroutine[Any, Any, None]) -> None:
    """Take SIGTERM and SIGHUP for what Ctrl-C is, so that all blocks are left in order."""
    this = asyncio.current_task()
    assert this is not None
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, this.cancel)
    await work


def _first_of(group: BaseExceptionGroup[BaseException]) -> BaseException:
    first = group.exceptions[0]
    return _first_of(first) if isinstance(first, BaseExceptionGroup) else first
