import asyncio
import os
from pathlib import Path

import pytest

from brokkr.local.credentials import Credentials
from brokkr.local.git_server import GitServer, git_server, publish

pytestmark = pytest.mark.build


async def git(*arguments: str, folder: Path) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        *("git", *arguments),
        cwd=folder,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={"PATH": os.environ["PATH"], "HOME": str(folder), "GIT_TERMINAL_PROMPT": "0"},
    )
    output, _ = await process.communicate()
    return process.returncode or 0, output.decode().strip()


async def head(repositories: Path) -> str:
    return (await git("rev-parse", "main", folder=repositories / "sample.git"))[1]


@pytest.mark.parametrize("depth", [(), ("--depth", "1")])
@pytest.mark.parametrize("branch", [(), ("--branch", "main"), ("--branch", "v1")])
async def test_branches_and_tags_can_be_cloned(
    git_with_tag: GitServer,
    repositories: Path,
    tmp_path: Path,
    depth: tuple[str, ...],
    branch: tuple[str, ...],
) -> None:
    code, output = await git(
        "clone", *depth, *branch, f"{git_with_tag.url}/sample.git", "clone", folder=tmp_path
    )

    assert code == 0, output
    assert await git("rev-parse", "HEAD", folder=tmp_path / "clone") == (
        0,
        await head(repositories),
    )


@pytest.fixture
async def git_with_tag(git: GitServer, repositories: Path) -> GitServer:
    bare = repositories / "sample.git"
    process = await asyncio.create_subprocess_exec("git", "-C", bare, "tag", "-f", "v1", "main")
    await process.wait()
    return git


async def test_one_commit_can_be_fetched_by_its_full_name(
    repositories: Path, tmp_path: Path
) -> None:
    async with git_server(repositories) as server:
        await git("init", ".", folder=tmp_path)
        code, output = await git(
            *("fetch", "--depth", "1", f"{server.url}/sample.git", await head(repositories)),
            folder=tmp_path,
        )

    assert code == 0, output


async def test_a_repository_that_is_not_there_is_not_found(
    repositories: Path, tmp_path: Path
) -> None:
    async with git_server(repositories) as server:
        code, output = await git("clone", f"{server.url}/nope.git", folder=tmp_path)

    assert code == 128
    assert f"repository '{server.url}/nope.git/' not found" in output


async def test_nothing_outside_the_folder_is_served(tmp_path: Path) -> None:
    files = tmp_path / "files"
    files.mkdir()
    (files / "a").write_text("1")
    await publish(files, tmp_path / "hidden", "x")
    await publish(files, tmp_path / "served", "x")

    async with git_server(tmp_path / "served") as server:
        code, _ = await git("clone", f"{server.url}/%2e%2e/hidden/x.git", folder=tmp_path)

    assert code == 128


async def test_nobody_can_push(repositories: Path, tmp_path: Path) -> None:
    before = await head(repositories)
    async with git_server(repositories) as server:
        await git("clone", f"{server.url}/sample.git", "clone", folder=tmp_path)
        code, _ = await git("push", "origin", "HEAD:refs/heads/other", folder=tmp_path / "clone")

    assert code != 0
    assert await head(repositories) == before


@pytest.mark.parametrize(
    ("given", "works"), [("user:secret@", True), ("user:wrong@", False), ("", False)]
)
async def test_a_closed_server_wants_the_password(
    repositories: Path, tmp_path: Path, given: str, works: bool
) -> None:
    async with git_server(repositories, credentials=Credentials("user", "secret")) as server:
        url = server.url.replace("http://", f"http://{given}")
        code, _ = await git("clone", f"{url}/sample.git", folder=tmp_path)

    assert (code == 0) is works


async def test_the_same_files_are_the_same_commit_everywhere(tmp_path: Path) -> None:
    files = tmp_path / "files"
    files.mkdir()
    (files / "a").write_text("1")

    here = await publish(files, tmp_path / "here", "x")
    there = await publish(files, tmp_path / "there", "x")
    again = await publish(files, tmp_path / "here", "x")

    assert here == there == again


async def test_changed_files_are_a_new_commit(tmp_path: Path) -> None:
    files = tmp_path / "files"
    files.mkdir()
    (files / "a").write_text("1")
    first = await publish(files, tmp_path / "repositories", "x")
    (files / "a").write_text("2")

    second = await publish(files, tmp_path / "repositories", "x")

    parent = await git("rev-parse", "main~1", folder=tmp_path / "repositories" / "x.git")
    assert parent == (0, first)
    assert second != first


async def test_a_client_that_leaves_half_way_does_not_hold_up_the_server(tmp_path: Path) -> None:
    files = tmp_path / "files"
    files.mkdir()
    (files / "big").write_bytes(os.urandom(4_000_000))
    await publish(files, tmp_path / "repositories", "x")
    _, blob = await git("rev-parse", "main:big", folder=tmp_path / "repositories" / "x.git")

    async with asyncio.timeout(20), git_server(tmp_path / "repositories") as server:
        host, _, port = server.url.removeprefix("http://").partition(":")
        reader, writer = await asyncio.open_connection(host, port)
        path = f"/x.git/objects/{blob[:2]}/{blob[2:]}"
        writer.write(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        assert b"200 OK" in await reader.readline()
        writer.close()
