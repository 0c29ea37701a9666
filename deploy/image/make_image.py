"""
Build the image of broker and agent: what `make image` runs.

Gets the programs, the base and the wheels that the Containerfile needs, builds with buildah
into a storage of this build alone, and leaves the image as an OCI layout.  It can push it,
too.  What is expensive is kept in the user's cache: see docs/how-to/build-the-image.md.
"""

# Note [Twice the same image]
#
# Of one commit, the same base and the same lock file, two builds give the same layers, byte
# by byte.  So all times are the commit's, compiled modules name their source by its hash,
# and nothing is resolved but from the wheels of the lock file.

import argparse
import asyncio
import hashlib
import json
import os
import subprocess
import sys
import sysconfig
import tempfile
from datetime import UTC, datetime
from importlib.metadata import version as version_of
from pathlib import Path

from brokkr import __version__
from brokkr.local.binaries import ProgramsMissing, cache_folder, ensure_programs
from debian_base import BaseFailed, debian_base

ROOT = Path(__file__).parents[2]
LOCK = ROOT / "requirements.lock"


def main() -> None:
    """Build, say what came out, and push it if told where to."""
    given = _arguments()
    if given.to.exists() and not (given.to / "oci-layout").exists():
        sys.exit(f"error: {given.to} is there and no image; it would be replaced")
    try:
        asyncio.run(ensure_programs(["buildah", "git", "skopeo"], _say))
        cache = cache_folder().parent / "image"
        extras = given.extras.split(",")
        base = given.base or debian_base(cache, with_shell="embedded" in extras, say=_say)
        wheels = _wheels(cache)
        _build(given.to, base=base, wheels=wheels, extras=given.extras, source=given.source)
        print(f"image   {given.to}  (OCI layout, brokkr {__version__})")
        print(f"size    {_size(given.to)}")
        print(f"digest  {_manifest_descriptor(given.to)['digest']}")
        if given.push:
            digest = _push(given.to, given.push, has_tls=not given.insecure)
            print(f"pushed  {given.push}@{digest}")
    except (BaseFailed, ProgramsMissing) as error:
        sys.exit(f"error: {error}")
    except subprocess.CalledProcessError as error:
        sys.exit(f"error: {Path(error.cmd[0]).name} ended with {error.returncode}, see above")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Build the image of broker and agent.")
    parser.add_argument("--to", type=Path, default=ROOT / "build/image", help="the OCI layout")
    parser.add_argument("--base", help="a base image; default: made from Debian's packages")
    parser.add_argument("--extras", default="otel", help="of pyproject.toml, with commas")
    parser.add_argument("--source", default="", help="where the sources are, for the label")
    parser.add_argument("--push", help="where to push it, as registry/name:tag")
    parser.add_argument("--insecure", action="store_true", help="that registry speaks http")
    return parser.parse_args()


def _wheels(cache: Path) -> Path:
    """Return the folder with all that the lock file names, and pip; get them if need be."""
    pip = f"pip=={version_of('pip')}"
    key = hashlib.sha256(
        LOCK.read_bytes() + f"{pip} {sysconfig.get_platform()}".encode()
    ).hexdigest()[:16]
    wheels = cache / f"wheels-{key}"
    if not wheels.exists():
        _say("getting the wheels of requirements.lock (half a minute); they are kept")
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache, prefix=".wheels-") as scratch:
            got = Path(scratch, "wheels")
            download = (
                *(sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"),
                *("--only-binary", ":all:", "--dest", got),
            )
            _run(*download, "--require-hashes", "--requirement", LOCK)
            _run(*download, pip)
            # Another run may have been faster; what is there is as good.
            if not wheels.exists():
                got.rename(wheels)
    return wheels


def _build(to: Path, *, base: str | Path, wheels: Path, extras: str, source: str) -> None:
    revision, committed_at = _commit()
    epoch = int(os.environ.get("SOURCE_DATE_EPOCH", committed_at))
    created = datetime.fromtimestamp(epoch, UTC).isoformat().replace("+00:00", "Z")
    arguments = {
        "BASE": base if isinstance(base, str) else "localhost/brokkr-base",
        "EXTRAS": extras,
        "VERSION": __version__,
        "REVISION": revision,
        "CREATED": created,
        "SOURCE": source,
    }
    to.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=to.parent, prefix=".image-") as scratch:
        dist = Path(scratch, "dist")
        _run(
            # What builds it is installed here from the lock, and not fetched for the occasion.
            *(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps"),
            *("--no-build-isolation", "--wheel-dir", dist, ROOT),
            SOURCE_DATE_EPOCH=str(epoch),
        )
        # One storage per build: nothing is shared, so nothing needs locks or cleaning.
        storage, runs, made = f"{scratch}/storage", f"{scratch}/run", Path(scratch, "layout")
        buildah = ("buildah", "--storage-driver", "vfs", "--root", storage, "--runroot", runs)
        if isinstance(base, Path):
            to_storage = f"containers-storage:[vfs@{storage}+{runs}]localhost/brokkr-base"
            _run("skopeo", "copy", "--quiet", f"oci:{base}", to_storage)
        _run(
            *(*buildah, "bud", "--quiet", "--isolation", "chroot", "--format", "oci"),
            *("--timestamp", str(epoch), "--disable-compression=false", "--identity-label=false"),
            *(f"--build-arg={name}={value}" for name, value in arguments.items()),
            *(f"--build-context=wheels={wheels}", f"--build-context=dist={dist}"),
            *("--ignorefile", ROOT / ".containerignore", "--file", ROOT / "Containerfile"),
            *("--tag", f"oci:{made}:{__version__}", ROOT),
        )
        if to.exists():
            to.rename(Path(scratch, "before"))
        made.rename(to)


def _commit() -> tuple[str, int]:
    """Return the commit, marked if there is more than it, and when it was made."""
    revision, committed_at = _output("git", "log", "-1", "--format=%H %ct").split()
    if _output("git", "status", "--porcelain"):
        revision += "-dirty"
    return revision, int(committed_at)


def _size(layout: Path) -> str:
    """Say how much is to be transferred."""
    descriptor = _manifest_descriptor(layout)
    manifest = json.loads(_blob(layout, descriptor["digest"]).read_text())
    size = sum(each["size"] for each in (manifest["config"], *manifest["layers"]))
    return f"{size / 2**20:.1f} MiB compressed, in {len(manifest['layers'])} layers"


def _manifest_descriptor(layout: Path) -> dict[str, str]:
    (descriptor,) = json.loads((layout / "index.json").read_text())["manifests"]
    found: dict[str, str] = descriptor
    return found


def _blob(layout: Path, digest: str) -> Path:
    return layout / "blobs" / digest.replace(":", "/")


def _push(layout: Path, to: str, *, has_tls: bool) -> str:
    with tempfile.NamedTemporaryFile("r") as digest:
        _run(
            *("skopeo", "copy", "--quiet", "--preserve-digests", "--digestfile", digest.name),
            *(f"--dest-tls-verify={str(has_tls).lower()}", f"oci:{layout}", f"docker://{to}"),
        )
        return digest.read()


def _output(*command: str) -> str:
    return subprocess.run(
        command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True
    ).stdout.strip()


def _run(*command: str | Path, **variables: str) -> None:
    """Run a program; what it prints is for people, and so goes where errors go."""
    subprocess.run(command, env={**os.environ, **variables}, stdout=sys.stderr, check=True)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
