"""What ``brokkr local demo`` shows: a build, its image, and what the log says of it."""

import asyncio
import json
import textwrap
from pathlib import Path
from typing import Final

import yaml

from brokkr.cli.follow import follow
from brokkr.client import BrokerClient
from brokkr.local.process import tethered
from brokkr.local.up import LocalSystem, Ports
from brokkr.wire.bodies import SubmitWork, TargetBody

USUAL_GIT: Final = f"http://127.0.0.1:{Ports().git}"
USUAL_REGISTRY: Final = f"127.0.0.1:{Ports().registry}"
"""The addresses that the example's file names; a system may have others."""


class DemoFailed(Exception):
    """Something that the demo shows did not happen."""


async def show_a_build(system: LocalSystem, folder: Path) -> None:
    """
    Build what a folder holds, and prove the image and the log entry.

    Raises:
        DemoFailed: One of them is not what it should be.
        ServerFailed: A part of the system ended meanwhile.
    """
    # The file names the usual ports; these may be others.
    text = (folder / "work.yaml").read_text()
    text = text.replace(USUAL_GIT, system.git_url).replace(USUAL_REGISTRY, system.registry)
    async with BrokerClient(system.broker_url, system.admin_key) as client:
        print(f"2. submit {folder / 'work.yaml'}, and follow it", flush=True)
        work = await client.submit_work(
            SubmitWork(
                work_type="build",
                template=text,
                target=TargetBody(match_labels={"env": "local"}),
            )
        )
        following = asyncio.create_task(
            follow(client, work, say=lambda line: print(f"   {line}", flush=True))
        )
        failing = asyncio.create_task(system.until_one_ends())
        try:
            await asyncio.wait({following, failing}, return_when=asyncio.FIRST_COMPLETED)
            if not following.done():
                raise failing.result()
            work = following.result()
        finally:
            following.cancel()
            failing.cancel()
    result = work.result or {}
    if not work.success:
        raise DemoFailed(f"the build ended {work.status}: {work.result_message}")

    image = f"{system.registry}/{result['image'].partition('/')[2]}"
    print(f"   image   {result['image']}\n   digest  {result['digest']}", flush=True)
    print("3. read the image back from the registry, and run it", flush=True)
    inspected = json.loads(
        await _output("skopeo", "inspect", "--tls-verify=false", f"docker://{image}")
    )
    if inspected["Digest"] != result["digest"]:
        raise DemoFailed(f"the registry has {inspected['Digest']}")
    print(f"   skopeo inspect says {inspected['Digest']}: the same", flush=True)
    for line in (await _run_image(image, system.folder)).splitlines():
        print(f"   it says: {line}", flush=True)
    print("4. the entry in the log", flush=True)
    entry = work.model_dump(mode="json", exclude_none=True, exclude={"resource", "progress"})
    print(textwrap.indent(yaml.safe_dump(entry, sort_keys=False), "   "), end="", flush=True)


async def _run_image(image: str, folder: Path) -> str:
    storage = (
        *("--root", f"{folder}/demo/root", "--runroot", f"{folder}/demo/run"),
        *("--storage-driver", "vfs"),
    )
    container = await _output(
        *("buildah", *storage, "from", "--tls-verify=false", f"docker://{image}")
    )
    return await _output(
        *("buildah", *storage, "run", "--isolation", "chroot", container.strip()),
        *("--", "cat", "/hello.txt"),
    )


async def _output(*command: str) -> str:
    process = await asyncio.create_subprocess_exec(
        *tethered(command), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    output, errors = await process.communicate()
    if process.returncode != 0:
        said = errors.decode(errors="replace").strip()
        raise DemoFailed(f"{' '.join(command[:2])} ended with {process.returncode}: {said}")
    return output.decode()
