"""The machine's programs, and a user who may run them."""

import os
import pwd
import shutil
from pathlib import Path

import pytest

from brokkr.broker.db import postgres_programs
from brokkr.broker.db.embedded import embedded_postgres
from brokkr.broker.db.postgres_programs import (
    SERVER_USER,
    EmbeddedPostgresFailed,
    find_programs,
    reachable_programs,
    server_user,
)

pytestmark = pytest.mark.postgres

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes another user")


def program_of(pid: int) -> Path:
    return Path(f"/proc/{pid}/exe").readlink()


def postmaster(data_dir: Path) -> int:
    return int((data_dir / "postgres/postmaster.pid").read_text().split()[0])


@as_root
async def test_programs_where_the_server_may_not_go_are_copied_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = find_programs()
    site, install = tmp_path / "site", found.parent
    shutil.copytree(install, site / install.parent.name / install.name, symlinks=True)
    libraries = found.parents[2] / f"{install.parent.name}.libs"
    shutil.copytree(libraries, site / libraries.name)
    hidden = site / install.parent.name / install.name / "bin"
    cache = Path("/tmp") / f"brokkr-test-cache-{os.getpid()}"
    monkeypatch.setattr(postgres_programs, "PROGRAM_CACHE", cache)
    monkeypatch.setattr(postgres_programs, "find_programs", lambda: hidden)
    try:
        async with embedded_postgres(tmp_path / "data"):
            executable = program_of(postmaster(tmp_path / "data"))
        copies = sorted(each.name for each in cache.iterdir())

        assert executable.is_relative_to(cache)
        assert copies == ["lock", executable.relative_to(cache).parts[0]]
        assert reachable_programs(server_user(tmp_path / "none")).is_relative_to(cache)
    finally:
        shutil.rmtree(cache)


async def test_without_programs_the_error_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_programs, "_candidates", lambda: iter([tmp_path]))
    with pytest.raises(EmbeddedPostgresFailed, match=r"brokkr\[embedded\]"):
        async with embedded_postgres(tmp_path / "data"):
            pass


def test_programs_too_old_to_stay_in_their_folder_are_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("initdb", "postgres"):
        program = tmp_path / name
        program.write_text("#!/bin/sh\necho 'postgres (PostgreSQL) 15.18 (Debian 15.18-0)'\n")
        program.chmod(0o755)
    real = find_programs()
    monkeypatch.setattr(postgres_programs, "_candidates", lambda: iter([tmp_path, real]))

    assert find_programs() == real


@as_root
def test_root_s_new_server_runs_as_a_system_user_that_cannot_log_in(tmp_path: Path) -> None:
    user = server_user(tmp_path / "new")

    assert (user.pw_name, user.pw_shell) == (SERVER_USER, "/bin/false")
    assert user.pw_uid != 0


@as_root
def test_a_server_that_exists_is_run_by_whom_its_folder_belongs_to(tmp_path: Path) -> None:
    nobody = pwd.getpwnam("nobody")
    os.chown(tmp_path, nobody.pw_uid, nobody.pw_gid)

    assert server_user(tmp_path) == nobody


@as_root
def test_a_user_without_an_account_is_refused_in_words(tmp_path: Path) -> None:
    os.chown(tmp_path, 54321, 54321)

    with pytest.raises(EmbeddedPostgresFailed, match="account for user id 54321"):
        server_user(tmp_path)


def test_the_programs_that_are_found_can_be_run() -> None:
    assert os.access(find_programs() / "initdb", os.X_OK)
