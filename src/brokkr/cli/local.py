"""``brokkr local``: the whole system on one machine."""

import asyncio
import signal
from collections.abc import Coroutine
from pathlib import Path
from time import monotonic
from typing import Annotated, Any

import typer

from brokkr.agent.kube.errors import KubeError
from brokkr.cli.demo import USUAL_GIT, USUAL_REGISTRY, DemoFailed, show_a_build
from brokkr.cli.output import say
from brokkr.local.binaries import (
    ProgramsMissing,
    cache_folder,
    ensure_programs,
    kubernetes_programs,
)
from brokkr.local.credentials import Credentials
from brokkr.local.folder import AlreadyRunning
from brokkr.local.git_server import GitFailed
from brokkr.local.process import ServerFailed
from brokkr.local.up import (
    AGENT,
    CLONE_SECRET,
    NAMESPACE,
    PROGRAMS,
    PUSH_SECRET,
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

EXAMPLE = Path("examples/hello-image")
PORTS = Ports()
CREDENTIALS = Credentials("brokkr", "local-only")


@app.command()
def prepare() -> None:
    """Install and compile what local mode runs, so that later starts are quick."""

    async def get_ready() -> None:
        await ensure_programs(PROGRAMS, say)
        await kubernetes_programs(say)

    _run(get_ready())


@app.command()
def up(
    folder: Annotated[
        Path,
        typer.Option(help="For data, logs and keys; emptied. New, empty or an earlier one's."),
    ] = Path(".brokkr"),
    kubeconfig: Annotated[
        Path | None,
        typer.Option(
            help="Use this cluster and its Shipwright; start no API server and no build runner."
        ),
    ] = None,
    publish: Annotated[
        list[Path] | None,
        typer.Option(
            exists=True,
            file_okay=False,
            help="Serve this folder as a git repository of its name. Repeatable.",
        ),
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
    sources = publish or ([EXAMPLE] if EXAMPLE.is_dir() else [])

    async def run() -> None:
        started = monotonic()
        say("starting (a few seconds; the first time, programs are installed and compiled)")
        async with local_system(
            folder.absolute(),
            say=say,
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
    lines += [f"  {_submit_example(system)}", f"  kubectl get works -n {NAMESPACE}"]
    print("\n".join(lines), flush=True)


@app.command()
def demo(
    folder: Annotated[
        Path,
        typer.Argument(
            exists=True,
            file_okay=False,
            help="Holds a Dockerfile and work.yaml, the Build to submit.",
        ),
    ] = EXAMPLE,
) -> None:
    """
    Start everything, build an image, prove it, and stop everything again.

    The data is thrown away; programs that were compiled or installed are kept.
    """
    data = cache_folder().with_name("demo")

    async def run() -> None:
        started = monotonic()
        print(f"1. start everything on this machine (data in {data})", flush=True)
        async with local_system(data, say=say, sources=[folder.absolute()]) as system:
            print(f"   ready after {monotonic() - started:.1f} s", flush=True)
            await show_a_build(system, folder)
            print("5. stop everything", flush=True)
        print(f"done after {monotonic() - started:.1f} s", flush=True)

    _run(run())


def _submit_example(system: LocalSystem) -> str:
    """Render the command that submits the example, whose file names the usual addresses."""
    file, submit = EXAMPLE / "work.yaml", "brokkr work submit {} --target env=local --follow"
    changes = {USUAL_GIT: system.git_url, USUAL_REGISTRY: system.registry}
    moved = [f"s|{usual}|{here}|" for usual, here in changes.items() if usual != here]
    if not moved:
        return submit.format(file)
    return f"sed '{'; '.join(moved)}' {file} | {submit.format('-')}"


_EXPECTED = (
    AlreadyRunning,
    DemoFailed,
    ProgramsMissing,
    ServerFailed,
    GitFailed,
    BrokkrError,
    KubeError,
)


def _run(work: Coroutine[Any, Any, None]) -> None:
    """Run to the end, and turn what may go wrong into one line and an exit code."""
    try:
        asyncio.run(_until_stopped(work))
    except (KeyboardInterrupt, asyncio.CancelledError):
        say("stopped")
        raise typer.Exit(130) from None
    except _EXPECTED as error:
        say(f"error: {error}")
        raise typer.Exit(1) from None
    except BaseExceptionGroup as group:
        expected, rest = group.split(_EXPECTED)
        if rest is not None or expected is None:
            raise
        say(f"error: {_first_of(expected)}")
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
