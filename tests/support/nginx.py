"""A real nginx, taken out of Debian's package unless the machine has one."""

import asyncio
import os
import pwd
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

from brokkr.local.process import is_listening, running


@asynccontextmanager
async def nginx(folder: Path, servers: str, *, port: int) -> AsyncIterator[None]:
    """Run nginx with some servers, one of which listens on the port, while the block lasts."""
    program = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
    temporary = "\n".join(
        f"{each}_temp_path {folder}/{each};"
        for each in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    configuration = folder / "nginx.conf"
    configuration.write_text(
        f"daemon off;\npid {folder}/nginx.pid;\nerror_log stderr;\n"
        + ("user root;\n" if os.geteuid() == 0 else "")
        + f"events {{}}\nhttp {{\naccess_log off;\n{temporary}\n{servers}\n}}\n"
    )
    async with running(
        "nginx",
        [program or await _unpack(folder), "-p", folder, "-e", "stderr", "-c", configuration],
        log=folder / "nginx.log",
        is_ready=partial(is_listening, port),
    ):
        yield


async def _unpack(folder: Path) -> Path:
    # The user that apt would download as cannot write into our folder.
    user = pwd.getpwuid(os.geteuid()).pw_name
    download = f"apt-get -q -o APT::Sandbox::User={user} download nginx"
    unpack = "dpkg-deb -x nginx_*.deb nginx"
    command = f"({download} || (apt-get -q update && {download})) && {unpack}"
    process = await asyncio.create_subprocess_shell(command, cwd=folder)
    assert await process.wait() == 0, f"nginx is not here, and cannot be had: {command}"
    return folder / "nginx" / "usr" / "sbin" / "nginx"
