"""
Make the image's base from Debian 12's packages: Python, its libraries, certificates.

The packages are unpacked, not installed: no shell, no dpkg and no scripts of theirs come
along.  What the scripts would have done, and Python needs, is done here.
"""

# Note [The base is cached by content]
#
# The key is made of the packages' file names and hashes, as apt knows them, and of this
# file.  No date is in it, so a base is made once and found from then on without a network.
# `apt-get update` is what brings a new version of a package, and with it a new key.

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

PACKAGES: Final = (
    *("base-files", "ca-certificates", "gcc-12-base", "libbz2-1.0", "libc6", "libexpat1"),
    *("libffi8", "libgcc-s1", "liblzma5", "libpython3.11-minimal", "libpython3.11-stdlib"),
    *("libssl3", "libstdc++6", "libuuid1", "netbase", "python3.11-minimal", "tzdata", "zlib1g"),
)
"""All that the base consists of.  A test loads each module of Python and of the wheels."""

SHELL: Final = "dash"
"""Comes along where PostgreSQL runs in the image: its initdb starts programs with a shell."""

# Merged /usr, as debootstrap makes it.
_LINKS: Final = {
    "bin": "usr/bin",
    "sbin": "usr/sbin",
    "lib": "usr/lib",
    "lib64": "usr/lib64",
    "var/run": "../run",
    "var/tmp": "../tmp",
    "usr/bin/python3": "python3.11",
}
_FOLDERS: Final = ("dev", "etc/ssl/certs", "proc", "run", "sys", "usr/bin", "usr/sbin")
_FILES: Final = {
    "etc/passwd": "root:x:0:0:root:/root:/usr/sbin/nologin\n"
    "nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n",
    "etc/group": "root:x:0:\nnogroup:x:65534:\n",
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
}
# What Python on a server does without.  The extension modules would want libraries more.
_LEFT_OUT: Final = """
    usr/share/man usr/share/locale usr/share/lintian usr/share/bug usr/share/info usr/share/pixmaps
    usr/share/applications usr/share/binfmts usr/share/base-files usr/share/zoneinfo/right
    usr/sbin/* usr/lib/*/gconv etc/update-motd.d etc/profile.d etc/skel etc/ca-certificates
    var/local var/lock var/mail var/spool var/backups
    boot home media mnt opt srv usr/games usr/include usr/local usr/src
    usr/lib/python3.11/test usr/lib/python3.11/idlelib usr/lib/python3.11/tkinter
    usr/lib/python3.11/ensurepip usr/lib/python3.11/lib2to3 usr/lib/python3.11/pydoc_data
    usr/lib/python3.11/turtledemo usr/lib/python3.11/config-* usr/lib/python3.11/sqlite3
    usr/lib/python3.11/curses usr/lib/python3.11/dbm
    usr/lib/python3.11/lib-dynload/_crypt.* usr/lib/python3.11/lib-dynload/_curses.*
    usr/lib/python3.11/lib-dynload/_curses_panel.* usr/lib/python3.11/lib-dynload/_dbm.*
    usr/lib/python3.11/lib-dynload/_sqlite3.* usr/lib/python3.11/lib-dynload/nis.*
    usr/lib/python3.11/lib-dynload/readline.*
"""

Say = Callable[[str], None]


class BaseFailed(Exception):
    """The base cannot be made here; the message says why."""


def debian_base(cache: Path, *, with_shell: bool, say: Say) -> Path:
    """
    Return the folder of the base, an OCI layout; make it if it is not in the cache.

    Args:
        cache: Where bases are kept.
        with_shell: Whether it needs a shell.

    Raises:
        BaseFailed: This is not Debian 12, we are not root, or a package cannot be had.
    """
    _check_can_make()
    packages = sorted({*PACKAGES, SHELL} if with_shell else PACKAGES)
    base = cache / f"base-{_key(packages)}"
    if not base.exists():
        # What apt knows may be of long ago, and the files be gone.
        say("asking Debian for the newest packages of the image's base")
        _run("apt-get", "-qq", "update")
        base = cache / f"base-{_key(packages)}"
    if not base.exists():
        say(f"making the image's base from {len(packages)} packages (half a minute); it is kept")
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache, prefix=".base-") as scratch:
            _make(packages, Path(scratch))
            _keep(Path(scratch, "layout"), base)
    return base


def _check_can_make() -> None:
    release = Path("/etc/os-release").read_text()
    if not ("ID=debian" in release and 'VERSION_ID="12"' in release and os.geteuid() == 0):
        raise BaseFailed("the base is made on Debian 12, as root; elsewhere name one with --base")


def _key(packages: list[str]) -> str:
    """Name what apt would download, and what is made of it."""
    done = subprocess.run(
        ["apt-get", "download", "--print-uris", *packages],
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    # The quoted part is where this machine would get it.
    files = re.sub("'.*?' ", "", done.stdout) if done.returncode == 0 else ""
    return hashlib.sha256(files.encode() + Path(__file__).read_bytes()).hexdigest()[:16]


def _make(packages: list[str], scratch: Path) -> None:
    debs, root = scratch / "debs", scratch / "root"
    debs.mkdir()
    # The user that apt would download as cannot write into our folder.
    _run("apt-get", "-qq", "-o", "APT::Sandbox::User=root", "download", *packages, cwd=debs)
    _lay_out(root)
    for deb in sorted(debs.iterdir()):
        _unpack(deb, root)
    _leave_out(root)
    _collect_certificates(root)
    _run(
        *("chroot", str(root), "/usr/bin/python3.11", "-m", "compileall", "-q"),
        *("--invalidation-mode", "unchecked-hash", "/usr/lib/python3.11"),
        env={"PYTHONHASHSEED": "0"},
    )
    _pack(root, scratch)


def _lay_out(root: Path) -> None:
    root.mkdir(mode=0o755)
    for folder in _FOLDERS:
        (root / folder).mkdir(parents=True, exist_ok=True)
    for link, to in _LINKS.items():
        (root / link).parent.mkdir(exist_ok=True)
        (root / link).symlink_to(to)
    for name in ("usr/lib", "usr/lib64"):
        (root / name).mkdir()
    (root / "tmp").mkdir()
    (root / "tmp").chmod(0o1777)


def _unpack(deb: Path, root: Path) -> None:
    """Unpack a package, and note it where scanners for vulnerabilities look."""
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", deb], stdout=subprocess.PIPE) as tar:
        subprocess.run(
            ["tar", "-x", "--keep-directory-symlink", "-C", root], stdin=tar.stdout, check=True
        )
    if tar.returncode:
        raise BaseFailed(f"dpkg-deb could not unpack {deb.name}")
    control = subprocess.run(["dpkg-deb", "--field", deb], capture_output=True, check=True).stdout
    status = root / "var/lib/dpkg/status.d" / deb.name.partition("_")[0]
    status.parent.mkdir(parents=True, exist_ok=True)
    status.write_bytes(control)


def _leave_out(root: Path) -> None:
    for pattern in _LEFT_OUT.split():
        for each in root.glob(pattern):
            _remove(each)
    for each in root.glob("usr/share/doc/*/*"):
        if each.name != "copyright":
            _remove(each)
    for name, content in _FILES.items():
        (root / name).write_text(content)
    for each in root.rglob("*"):
        mode = each.lstat().st_mode
        if not each.is_symlink() and mode & 0o6000:
            each.chmod(mode & 0o1777)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def _collect_certificates(root: Path) -> None:
    """Do what update-ca-certificates does: all of them in one file."""
    folder = root / "usr/share/ca-certificates/mozilla"
    bundle = b"".join(each.read_bytes() for each in sorted(folder.iterdir()))
    (root / "etc/ssl/certs/ca-certificates.crt").write_bytes(bundle)
    shutil.rmtree(folder.parent)


def _pack(root: Path, scratch: Path) -> None:
    containerfile = scratch / "Containerfile"
    containerfile.write_text(
        "FROM scratch\nCOPY . /\n"
        "ENV PATH=/usr/bin LANG=C.UTF-8 SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt\n"
    )
    storage = ("--storage-driver", "vfs", "--root", f"{scratch}/s", "--runroot", f"{scratch}/r")
    _run(
        *("buildah", *storage, "bud", "--quiet", "--isolation", "chroot", "--format", "oci"),
        *("--timestamp", "0", "--tag", "localhost/base", "--file", containerfile, root),
    )
    _run("buildah", *storage, "push", "--quiet", "localhost/base", f"oci:{scratch}/layout")


def _keep(made: Path, base: Path) -> None:
    try:
        made.rename(base)
    except OSError:  # another run was faster
        if not base.exists():
            raise


def _run(*command: str | Path, cwd: Path | None = None, env: dict[str, str] | None = None) -> None:
    done = subprocess.run(
        command,
        cwd=cwd,
        env={**os.environ, **(env or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        raise BaseFailed(f"{' '.join(map(str, command))} failed:\n{done.stdout[-2000:]}")
