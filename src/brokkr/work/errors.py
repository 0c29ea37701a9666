"""
What can go wrong, as facts that callers treat differently.

::

    BrokkrError
    ├── InvalidInput          422  the content is wrong: `field` says where
    │   ├── InvalidWork            ... a Work, its template or its target
    │   └── InvalidAgent           ... an agent's name, labels or annotations
    ├── MalformedBody         400  not JSON or YAML at all
    │   └── BodyEncoded       415  compressed, which is not read here
    ├── BodyTooLarge          413
    ├── Unauthenticated       401  no key, or one that opens nothing
    ├── NotPermitted          403  a good key, for something else
    ├── NoSuchEndpoint        404  this API has no such path
    │   └── MethodNotAllowed  405  ... or the path has no such method
    ├── NotFound              404  it does not exist *for this caller*
    │   ├── WorkNotFound
    │   ├── AgentNotFound
    │   ├── GeneratorNotFound
    │   └── KeyNotFound
    ├── Conflict              409  the caller lost a race or came too late
    │   ├── WorkNotClaimable       not pending any more
    │   ├── ClaimLost              the claim has ended, and another fact holds
    │   ├── WorkFinished           it is in the execution log
    │   ├── WorkNotHeld            nobody has it, so nobody can give it back
    │   ├── WorkNotFinished        it is not, so it cannot be queued again
    │   ├── PayloadPruned          its template is no longer kept
    │   ├── IdempotencyKeyReused   the key was sent with another body
    │   ├── AgentDrained           it is offered nothing
    │   ├── WorkTypeUnavailable    the agent has said that it cannot execute it now
    │   ├── AgentNameTaken
    │   ├── AgentSuperseded        a newer process of this agent is at work
    │   ├── GeneratorNameTaken
    │   └── LastAdminKey           nobody could make another one
    ├── LimitReached          429  later: `retry_after` says when
    └── BrokerUnavailable     503  client side: no answer, or none that a broker gives
        ├── DatabaseUnavailable    the broker itself has no answer from PostgreSQL
        └── BrokerFailed      500  a mistake of the broker's own; its log says which

An error carries its data as attributes and makes its own sentence.  `code` is the
stable word for it on the wire (:mod:`brokkr.wire.problem`).
"""

from typing import ClassVar
from uuid import UUID


class BrokkrError(Exception):
    """
    Base of everything that this project raises on purpose.

    Attributes:
        broker: The id of the broker's database, if a broker has said this and named itself.
    """

    code: ClassVar[str] = "error"
    broker: str | None = None


class InvalidInput(BrokkrError):
    """Content that was understood and is wrong.

    Attributes:
        field: Where, as a dotted path (``template.spec.source.git.url``).
        problem: What is wrong there and what would be right.
    """

    code = "invalid"

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}" if field else problem)
        self.field = field
        self.problem = problem


class InvalidWork(InvalidInput):
    """A Work, its template or its target cannot be accepted."""

    code = "invalid_work"


class InvalidAgent(InvalidInput):
    """An agent's name, labels or annotations cannot be accepted."""

    code = "invalid_agent"


class MalformedBody(BrokkrError):
    """The body is not what its content type says it is."""

    code = "malformed_body"


class BodyEncoded(MalformedBody):
    """The body is compressed, or encoded otherwise: its size would say nothing."""

    code = "body_encoded"

    def __init__(self, encoding: str) -> None:
        super().__init__(
            f"the content encoding {encoding!r} is not read here: send the body as it is"
        )
        self.encoding = encoding


class BodyTooLarge(BrokkrError):
    """The body is over the configured limit."""

    code = "body_too_large"

    def __init__(self, limit_bytes: int) -> None:
        super().__init__(f"the request body is larger than {limit_bytes} bytes")
        self.limit_bytes = limit_bytes


class Unauthenticated(BrokkrError):
    """No key was sent, or the key that was sent opens nothing."""

    code = "unauthenticated"


class NotPermitted(BrokkrError):
    """The key is good, and not for this."""

    code = "not_permitted"


class NoSuchEndpoint(BrokkrError):
    """The API has no such path: an older broker's has not, or the address is wrong.

    It is no :class:`NotFound`: it says nothing of any Work or agent.
    """

    code = "no_such_endpoint"


class MethodNotAllowed(NoSuchEndpoint):
    """The path exists, and not with this method."""

    code = "method_not_allowed"


class NotFound(BrokkrError):
    """It does not exist, as far as this caller may know."""

    code = "not_found"


class WorkNotFound(NotFound):
    """No Work of this id is visible to the caller."""

    code = "work_not_found"

    def __init__(self, work_id: UUID | str) -> None:
        super().__init__(f"there is no work {work_id}")
        self.work_id = str(work_id)


class AgentNotFound(NotFound):
    """No agent of this id or name is visible to the caller."""

    code = "agent_not_found"

    def __init__(self, agent: UUID | str) -> None:
        super().__init__(f"there is no agent {agent}")
        self.agent = str(agent)


class GeneratorNotFound(NotFound):
    """No living generator has this id or name."""

    code = "generator_not_found"

    def __init__(self, generator: UUID | str) -> None:
        super().__init__(f"there is no generator {generator}")
        self.generator = str(generator)


class KeyNotFound(NotFound):
    """No key of this short id opens anything."""

    code = "key_not_found"

    def __init__(self, short_id: str) -> None:
        super().__init__(f"there is no key {short_id}")
        self.short_id = short_id


class Conflict(BrokkrError):
    """The caller lost a race, or came too late."""

    code = "conflict"


class WorkNotClaimable(Conflict):
    """Somebody else has it, or it is finished."""

    code = "work_not_claimable"

    def __init__(self, work_id: UUID | str) -> None:
        super().__init__(f"work {work_id} is not pending any more")
        self.work_id = str(work_id)


class ClaimLost(Conflict):
    """The claim is over: another claim, a cancel or a completion came after it."""

    code = "claim_lost"

    def __init__(self, work_id: UUID | str, state: str = "") -> None:
        now = f"; the work is now {state}" if state else ""
        super().__init__(f"the claim on work {work_id} is lost{now}")
        self.work_id = str(work_id)
        self.state = state


class WorkFinished(Conflict):
    """It is in the execution log, which nothing takes back."""

    code = "work_finished"

    def __init__(self, work_id: UUID | str, outcome: str) -> None:
        super().__init__(f"work {work_id} is finished: {outcome}")
        self.work_id = str(work_id)
        self.outcome = outcome


class WorkNotHeld(Conflict):
    """Nobody holds it, so there is nothing to give back."""

    code = "work_not_held"

    def __init__(self, work_id: UUID | str) -> None:
        super().__init__(f"nobody holds work {work_id}: it is pending already")
        self.work_id = str(work_id)


class WorkNotFinished(Conflict):
    """It is in the queue, so it cannot be put there again."""

    code = "work_not_finished"

    def __init__(self, work_id: UUID | str, state: str) -> None:
        super().__init__(f"work {work_id} is not finished: it is {state}")
        self.work_id = str(work_id)
        self.state = state


class PayloadPruned(Conflict):
    """Its template was deleted by age, so it cannot be executed again."""

    code = "payload_pruned"

    def __init__(self, work_id: UUID | str) -> None:
        super().__init__(f"the template of work {work_id} is no longer kept; submit the work anew")
        self.work_id = str(work_id)


class IdempotencyKeyReused(Conflict):
    """The key was sent before, with another body."""

    code = "idempotency_key_reused"

    def __init__(self, key: str) -> None:
        super().__init__(
            f"idempotency key {key!r} was used for another body; "
            "send the first body again, or choose another key"
        )
        self.key = key


class AgentDrained(Conflict):
    """The agent is drained: what it holds goes on, and it is offered nothing."""

    code = "agent_drained"

    def __init__(self, agent: UUID | str) -> None:
        super().__init__(f"agent {agent} is drained; undrain it to let it claim")
        self.agent = str(agent)


class WorkTypeUnavailable(Conflict):
    """The agent has said that it cannot execute this type now, so it is offered none of it."""

    code = "work_type_unavailable"

    def __init__(self, work_type: str, reason: str) -> None:
        super().__init__(f"this agent cannot execute {work_type} now: {reason}")
        self.work_type = work_type
        self.reason = reason


class AgentNameTaken(Conflict):
    """A living agent has this name."""

    code = "agent_name_taken"

    def __init__(self, name: str) -> None:
        super().__init__(f"an agent named {name!r} exists already")
        self.name = name


class AgentSuperseded(Conflict):
    """A process of this agent that was started later is at work; stop."""

    code = "agent_superseded"

    def __init__(self, agent: UUID | str) -> None:
        super().__init__("a newer process of this agent is connected; this one must stop")
        self.agent = str(agent)


class GeneratorNameTaken(Conflict):
    """A living generator has this name."""

    code = "generator_name_taken"

    def __init__(self, name: str) -> None:
        super().__init__(f"a generator named {name!r} exists already")
        self.name = name


class LastAdminKey(Conflict):
    """No other living key could make keys, so this one stays."""

    code = "last_admin_key"

    def __init__(self, short_id: str) -> None:
        super().__init__(
            f"{short_id} is the last admin key that opens anything; make another one first"
        )
        self.short_id = short_id


class LimitReached(BrokkrError):
    """A limit of the caller's is reached; later there is room again.

    Attributes:
        retry_after: Seconds after which it is worth trying again.
    """

    code = "limit_reached"

    def __init__(self, problem: str, *, retry_after: float = 1) -> None:
        super().__init__(problem)
        self.retry_after = retry_after


class BrokerUnavailable(BrokkrError):
    """The broker did not answer, or could not.  Try again later; nothing is lost.

    Attributes:
        retry_after: Seconds after which it is worth trying again; 0 if nobody has said so.
    """

    code = "broker_unavailable"
    retry_after: float = 0


class DatabaseUnavailable(BrokerUnavailable):
    """PostgreSQL does not answer, or does not let the broker in."""

    code = "database_unavailable"


class BrokerFailed(BrokerUnavailable):
    """The broker made a mistake.  What was asked may have been done."""

    code = "internal_error"
