"""
Deterministic names: the same claim and attempt always mean the same object.

A controller that dies between creating an object and recording it finds that same
object afterwards instead of making a second one.

The names are label values (63 characters) and short enough for what Shipwright adds:
a BuildRun's name must not be longer than 57, or a deleted TaskRun is not noticed
(Shipwright's controller cuts ``-`` and five characters off to find the BuildRun).
"""

from uuid import UUID

MAX_NAME = 57


def work_name(work_id: UUID, *, round: int) -> str:
    """Name the Work resource of one claim."""
    return f"work-{work_id}-r{round}"


def work_of_attempt(name: str) -> str:
    """Return the name of the Work resource that an attempt of this name would belong to."""
    return name.rpartition("-a")[0]


def attempt_name(work_name: str, attempt: int) -> str:
    """Name every object of one attempt: its Build and its BuildRun."""
    return f"{work_name}-a{attempt}"
