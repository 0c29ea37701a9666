"""``python -m brokkr.local.build_runner``: the stand-in as a process of its own."""

import argparse
import asyncio
import signal
from pathlib import Path
from typing import TextIO, cast

import structlog

from brokkr.agent.kube.client import KubeClient
from brokkr.agent.kube.config import KubeConfig
from brokkr.agent.kube.errors import KubeError
from brokkr.local.build_runner.commands import NotContained, check_containment
from brokkr.local.build_runner.runner import BuildRunner, FolderInUse
from brokkr.log_output import standard_error


async def _serve(arguments: argparse.Namespace) -> None:
    """Run until SIGTERM or Ctrl-C."""
    # The default one prints the variables of each frame, which may hold a Secret's data.
    renderer = structlog.dev.ConsoleRenderer(
        colors=False, exception_formatter=structlog.dev.plain_traceback
    )
    stamp = structlog.processors.TimeStamper(fmt="iso", utc=True)
    structlog.configure(
        processors=[structlog.processors.add_log_level, stamp, renderer],
        logger_factory=structlog.WriteLoggerFactory(cast("TextIO", standard_error)),
    )
    this = asyncio.current_task()
    assert this is not None
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, this.cancel)
    await check_containment()
    async with KubeClient(KubeConfig.load(arguments.kubeconfig)) as kube:
        runner = BuildRunner(
            kube,
            arguments.folder,
            identity=arguments.identity,
            namespace=arguments.namespace,
            concurrency=arguments.concurrency,
        )
        try:
            await runner.run()
        except asyncio.CancelledError:
            return


def main() -> None:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(
        prog="python -m brokkr.local.build_runner",
        description="Run Shipwright Builds on this machine: a stand-in for Shipwright.",
    )
    parser.add_argument("--kubeconfig", type=Path, required=True)
    parser.add_argument("--folder", type=Path, required=True, help="for work and logs")
    parser.add_argument(
        "--identity", type=Path, required=True, help="the key pair of API server and kubelets"
    )
    parser.add_argument("--namespace", help="the only one to look at (default: all)")
    parser.add_argument("--concurrency", type=int, default=2, help="builds at once (default: 2)")
    arguments = parser.parse_args()
    try:
        asyncio.run(_serve(arguments))
    except (FolderInUse, NotContained, KubeError) as error:
        parser.exit(1, f"error: {error}\n")


if __name__ == "__main__":
    main()
