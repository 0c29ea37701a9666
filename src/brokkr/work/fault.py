"""Whose failure it was, in one word: for results, metrics and explanations."""

from collections.abc import Mapping
from enum import StrEnum


class Fault(StrEnum):
    """
    Where the cause of a failure is.  The set is closed: each class of failures has one.

    Attributes:
        USER: What was submitted: the Build, its parameters and limits, what it names.
        DOCKERFILE: The Dockerfile, or a program that it runs.
        SOURCE: The repository with the source, its server, or the credentials for it.
        REGISTRY: A registry, or the credentials for it.
        CLUSTER: The cluster's configuration, quota, policy or controllers.
        NODE: The node, or the Pod on it, was lost.
        AGENT: The agent itself, or a handler that is installed beside it.
        UNCLEAR: It cannot be told.
    """

    USER = "user"
    DOCKERFILE = "dockerfile"
    SOURCE = "source"
    REGISTRY = "registry"
    CLUSTER = "cluster"
    NODE = "node"
    AGENT = "agent"
    UNCLEAR = "unclear"

    @classmethod
    def find_in(cls, result: Mapping[str, object] | None) -> "Fault | None":
        """Return what a result, or one attempt in it, says; None if it says nothing known."""
        told = (result or {}).get("fault")
        return cls(told) if isinstance(told, str) and told in tuple(cls) else None

    @property
    def is_infrastructure(self) -> bool:
        """Say whether a retry is paid by the infrastructure budget, not by the Work's own."""
        return self in (Fault.CLUSTER, Fault.NODE)

    @property
    def is_local(self) -> bool:
        """Say whether another agent may succeed where this one has given up."""
        return self.is_infrastructure or self is Fault.AGENT
