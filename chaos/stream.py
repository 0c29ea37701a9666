"""What is submitted, who submits it, and what may become of it: all of it from the seed."""

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import Any, Final, Self

_IMAGE: Final = "registry.example.com/chaos:"


@dataclass(frozen=True, slots=True, kw_only=True)
class Workshop:
    """
    What builds need that are real.

    Attributes:
        source: The git repository of what is built.
        registry: Where images are pushed to, each into a repository of its Work's own.
    """

    source: str
    registry: str

    def image_of(self, key: str) -> str:
        """Return the image of the Work that has this idempotency key."""
        return f"{self.registry}/chaos/{key}"


@dataclass(frozen=True, slots=True)
class Behaviour:
    """How the attempts of a Work end, and after how many seconds."""

    kind: str
    seconds: float

    @property
    def image(self) -> str:
        """Return the image's name, in which the build runner finds this again."""
        return f"{_IMAGE}{self.kind}-{int(self.seconds * 1000)}"

    @classmethod
    def of_image(cls, image: str) -> Self:
        """Read it back."""
        kind, _, milliseconds = image.removeprefix(_IMAGE).rpartition("-")
        return cls(kind, int(milliseconds) / 1000)


def outcome_of(behaviour: Behaviour, attempt: int) -> str | None:
    """Return the reason that attempt n ends with; None if it runs until it is cancelled."""
    match behaviour.kind:
        case "succeed":
            return "Succeeded"
        case "fail":
            return "MissingParameterValues"
        case "evicted-once":
            return "PodEvicted" if attempt == 1 else "Succeeded"
        case "evicted":
            return "PodEvicted"
        case _:
            return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Sort:
    """
    A sort of Work.

    Attributes:
        share: How many there are of it, beside the others' shares.
        outcomes: What it may end as.  Quarantine is always possible, with the evidence for it.
        behaviour: Of its attempts.
        batch: How many are submitted at once.
        cancelled: Whether somebody cancels it, a while after it was accepted.
        is_real: Whether an image is built, and not played.
        fields: Of the submission.
    """

    share: int
    outcomes: frozenset[str]
    behaviour: str
    batch: int = 1
    cancelled: bool = False
    is_real: bool = False
    fields: dict[str, Any]


SORTS: Final[dict[str, Sort]] = {
    "plain": Sort(share=6, outcomes=frozenset({"succeeded"}), behaviour="succeed", fields={}),
    "wrong": Sort(share=2, outcomes=frozenset({"failed"}), behaviour="fail", fields={}),
    "evicted once": Sort(
        share=3, outcomes=frozenset({"succeeded"}), behaviour="evicted-once", fields={}
    ),
    "always evicted": Sort(
        share=1,
        outcomes=frozenset({"failed"}),
        behaviour="evicted",
        fields={"max_retries": 1},
    ),
    "handed on": Sort(
        share=1,
        outcomes=frozenset({"failed"}),
        behaviour="evicted",
        fields={"max_retries": 0, "max_handoffs": 1},
    ),
    "endless, cancelled": Sort(
        share=2,
        outcomes=frozenset({"cancelled"}),
        behaviour="never",
        cancelled=True,
        fields={},
    ),
    "cancelled at some time": Sort(
        share=2,
        outcomes=frozenset({"succeeded", "cancelled"}),
        behaviour="succeed",
        cancelled=True,
        fields={},
    ),
    "short lease": Sort(
        share=3,
        outcomes=frozenset({"succeeded"}),
        behaviour="succeed",
        fields={"claim_timeout_seconds": 3},
    ),
    "batch": Sort(
        share=1, outcomes=frozenset({"succeeded"}), behaviour="succeed", batch=5, fields={}
    ),
    "hurried": Sort(
        share=1,
        outcomes=frozenset({"succeeded", "expired"}),
        behaviour="succeed",
        fields={"start_within_seconds": 4},
    ),
    "real build": Sort(
        share=2,
        outcomes=frozenset({"succeeded"}),
        behaviour="succeed",
        is_real=True,
        fields={"target": {"match_labels": {"builds": "real"}}},
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """
    One submission to come.

    Attributes:
        sort: One of :data:`SORTS`.
        generator: Which of two submits it.
        keys: The idempotency key of each Work in it.
        pause_seconds: Until the next one.
        cancel_seconds: After acceptance, if it is cancelled.
    """

    sort: str
    generator: int
    keys: tuple[str, ...]
    behaviour: Behaviour
    pause_seconds: float
    cancel_seconds: float

    def bodies(self, workshop: Workshop | None) -> list[dict[str, Any]]:
        """Return what is submitted; a real build needs the workshop."""
        return [
            {
                "work_type": "build",
                "template": {
                    "apiVersion": "shipwright.io/v1beta1",
                    "kind": "Build",
                    "metadata": {"name": "chaos"},
                    "spec": {
                        "strategy": {"name": "buildah", "kind": "ClusterBuildStrategy"},
                        **self._from_and_to(key, workshop),
                    },
                },
                "target": {"match_labels": {"chaos": "yes"}},
                "claim_timeout_seconds": 15,
                "idempotency_key": key,
                **SORTS[self.sort].fields,
            }
            for key in self.keys
        ]

    def _from_and_to(self, key: str, workshop: Workshop | None) -> dict[str, Any]:
        source, output = "http://git.example.com/chaos.git", self.behaviour.image
        if SORTS[self.sort].is_real:
            assert workshop is not None, "nothing real can be built here"
            source, output = workshop.source, workshop.image_of(key)
        return {
            "source": {"type": "Git", "git": {"url": source}},
            "output": {"image": output, "insecure": True},
        }


def planned(seed: str) -> Iterator[Planned]:
    """Yield what is submitted, in its order, without end."""
    dice = Random(f"stream {seed}")
    names, shares = list(SORTS), [each.share for each in SORTS.values()]
    number = 0
    while True:
        (name,) = dice.choices(names, shares)
        sort = SORTS[name]
        keys = tuple(f"{seed}-{n}" for n in range(number, number + sort.batch))
        number += sort.batch
        yield Planned(
            sort=name,
            generator=dice.randrange(2),
            keys=keys,
            behaviour=Behaviour(sort.behaviour, dice.choice((0.2, 0.5, 1, 3, 6))),
            pause_seconds=dice.uniform(0.2, 1),
            cancel_seconds=dice.uniform(0, 6),
        )
