"""
Try hostile input at depth, for as long as asked: ``make hostile``.

What the tests try a little of with every change is tried here over and over, each round
with a seed of its own, which is printed: ``--seed`` repeats a round.  A round takes a quarter
of an hour on two cores that do little else.  Its processes may not take more than so much
memory, and a test that is not over in time has failed.
"""

import argparse
import random
import re
import resource
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
ROUND = {
    "objects that somebody has edited": "tests/unit/agent/controller/test_edited_objects.py",
    "bodies and templates": "tests/unit/wire tests/unit/work",
    "what a build says": "tests/unit/agent/handlers",
    "every route, as everybody": "tests/integration/broker/api/test_openapi.py",
}
MEMORY_BYTES = 4 * 1024**3
LONGEST_SECONDS = 1200
"""For one test; the longest takes five minutes."""


def run(name: str, paths: str, *, seed: int, profile: str) -> bool:
    """Run some tests at depth; print what they saw, and say whether it was good."""
    began = time.monotonic()
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", *paths.split(), "-q", "-rP", "--tb=short"),
            *(f"--hypothesis-seed={seed}", f"--hypothesis-profile={profile}"),
            *("--hypothesis-show-statistics", f"--timeout={LONGEST_SECONDS}"),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES)),
    )
    cases = re.findall(r"(\d+) passing, |^(\d+) requests as", done.stdout, re.MULTILINE)
    number = sum(int(drawn or asked) for drawn, asked in cases)
    seconds = time.monotonic() - began
    print(f"{name}: seed {seed}, {number} cases, {seconds:.0f} s, exit {done.returncode}")
    if done.returncode:
        print(done.stdout.partition("= FAILURES =")[2][:20_000], done.stderr[-2_000:])
    sys.stdout.flush()
    return done.returncode == 0


def main() -> None:
    """Go round until the time is over; a failure ends it."""
    options = argparse.ArgumentParser(description="Try hostile input at depth.")
    options.add_argument(
        "--minutes",
        type=float,
        default=15,
        help="begin no round after these; one takes about as long",
    )
    options.add_argument("--seed", type=int, help="of the first round; random unless given")
    options.add_argument("--profile", default="deep", help="of Hypothesis, in tests/conftest.py")
    given = options.parse_args()
    until = time.monotonic() + given.minutes * 60
    seed = given.seed if given.seed is not None else random.randrange(2**32)
    while True:
        for name, paths in ROUND.items():
            if not run(name, paths, seed=seed, profile=given.profile):
                sys.exit(1)
        if time.monotonic() >= until:
            return
        seed += 1


if __name__ == "__main__":
    main()
