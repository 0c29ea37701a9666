"""
Build an image as a step of a CI job, and say which one it is.

    BROKKR_URL=https://brokkr.example.com BROKKR_KEY=... \
        python build_image.py work.yaml --target env=prod --timeout 1800

Progress goes to standard error, the image by digest to standard output.

Exit codes: 0 it is built; 1 it is not; 2 what was given is wrong; 3 the broker is away or
refuses; 124 it took too long and is cancelled; 130 the job was stopped and it is cancelled.
"""

import argparse
import os
import signal
import sys
from pathlib import Path

from brokkr.client import Client, SubmitOptions, WorkBody
from brokkr.work.errors import BrokkrError, InvalidInput, MalformedBody, WorkFinished


def main() -> int:
    """Return the exit code."""
    words = argparse.ArgumentParser(description="Build an image with Brokkr.")
    words.add_argument("template", type=Path)
    words.add_argument("--target", action="append", required=True, metavar="KEY=VALUE")
    words.add_argument("--timeout", type=float, default=1800, metavar="SECONDS")
    given = words.parse_args()
    target = dict(each.split("=", 1) for each in given.target if "=" in each)

    # A CI system that stops a job sends SIGTERM; that shall stop the build as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    options: SubmitOptions = {"max_handoffs": 2, "labels": {"from": "ci"}}
    # Whatever names this run: started again by the CI system, it finds its Work and waits for it.
    if run := os.environ.get("CI_RUN_ID"):
        options["idempotency_key"] = f"ci-{run}"
    try:
        with Client() as client:
            work = client.submit(given.template, target=target, **options)
            try:
                print(f"work {work.id}", file=sys.stderr, flush=True)
                return report(client.wait(work.id, timeout_seconds=given.timeout))
            except TimeoutError as error:
                print(f"{error}; cancelling it", file=sys.stderr)
                cancel(client, work)
                return 124
            except KeyboardInterrupt:
                cancel(client, work)
                return 130
    except (InvalidInput, MalformedBody) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except BrokkrError as error:
        print(f"error: {error}", file=sys.stderr)
        return 3


def report(work: WorkBody) -> int:
    """Say how a Work ended."""
    if not work.success:
        print(f"{work.status.lower()}: {work.result_message}", file=sys.stderr)
        return 1
    print((work.result or {}).get("image_ref", ""))
    return 0


def cancel(client: Client, work: WorkBody) -> None:
    """Cancel a Work that may have ended this moment."""
    try:
        client.cancel(work.id)
    except WorkFinished as error:
        print(error, file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
