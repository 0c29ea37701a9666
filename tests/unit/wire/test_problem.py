import json
from collections.abc import Iterator

import pytest

from brokkr.wire.problem import STATUS, error_of, problem_of, status_of
from brokkr.work.errors import (
    AgentDrained,
    AgentNameTaken,
    AgentNotFound,
    AgentSuperseded,
    BodyTooLarge,
    BrokerUnavailable,
    BrokkrError,
    ClaimLost,
    Conflict,
    DatabaseUnavailable,
    GeneratorNameTaken,
    GeneratorNotFound,
    IdempotencyKeyReused,
    InvalidAgent,
    InvalidInput,
    InvalidWork,
    KeyNotFound,
    LastAdminKey,
    LimitReached,
    MalformedBody,
    NotFound,
    NotPermitted,
    PayloadPruned,
    Unauthenticated,
    WorkFinished,
    WorkNotClaimable,
    WorkNotFinished,
    WorkNotFound,
    WorkNotHeld,
    WorkTypeUnavailable,
)

ONE_OF_EACH = [
    AgentNameTaken("edge-7"),
    AgentNotFound("edge-7"),
    AgentSuperseded(),
    BodyTooLarge(1024),
    BrokerUnavailable("no answer"),
    BrokkrError("something"),
    ClaimLost("w-1", "PENDING"),
    Conflict("too late"),
    DatabaseUnavailable("no answer"),
    InvalidAgent("labels.gpu", "is wrong"),
    InvalidInput("field", "is wrong"),
    InvalidWork("template.spec", "is wrong"),
    MalformedBody("not JSON"),
    NotFound("nothing there"),
    NotPermitted("admins only"),
    Unauthenticated("no key"),
    WorkFinished("w-1", "succeeded"),
    AgentDrained("edge-7"),
    GeneratorNameTaken("ci"),
    GeneratorNotFound("ci"),
    IdempotencyKeyReused("k"),
    KeyNotFound("abcdefghij"),
    LastAdminKey("abcdefghij"),
    LimitReached("too many", retry_after=2.5),
    PayloadPruned("w-1"),
    WorkNotClaimable("w-1"),
    WorkNotFinished("w-1", "PENDING"),
    WorkNotHeld("w-1"),
    WorkNotFound("w-1"),
    WorkTypeUnavailable("build", "Shipwright is not installed"),
]


def all_kinds(kind: type[BrokkrError] = BrokkrError) -> Iterator[type[BrokkrError]]:
    # Other modules have errors of their own under the same root; these are the wire's.
    if kind.__module__ == BrokkrError.__module__:
        yield kind
        for child in kind.__subclasses__():
            yield from all_kinds(child)


def test_every_error_is_tried() -> None:
    assert {type(error) for error in ONE_OF_EACH} == set(all_kinds())


def test_no_two_errors_have_one_code() -> None:
    codes = [kind.code for kind in all_kinds()]

    assert len(codes) == len(set(codes))


@pytest.mark.parametrize("error", ONE_OF_EACH, ids=lambda error: error.code)
def test_what_the_broker_raises_is_what_the_client_raises(error: BrokkrError) -> None:
    sent = json.loads(json.dumps(problem_of(error)))

    received = error_of(sent["status"], sent)

    assert type(received) is type(error)
    assert str(received) == str(error)
    assert vars(received) == vars(error)


@pytest.mark.parametrize("error", ONE_OF_EACH, ids=lambda error: error.code)
def test_every_error_but_the_root_has_a_status(error: BrokkrError) -> None:
    known = any(isinstance(error, kind) for kind in STATUS)

    assert known or type(error) is BrokkrError
    assert problem_of(error)["status"] == status_of(error)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (404, NotFound),
        (409, Conflict),
        (422, InvalidInput),
        (429, BrokerUnavailable),
        (500, BrokerUnavailable),
        (502, BrokerUnavailable),
        (503, BrokerUnavailable),
        (504, BrokerUnavailable),
        (418, BrokkrError),
    ],
)
@pytest.mark.parametrize("problem", [{}, {"code": "from_the_future"}, {"code": ["nonsense"]}])
def test_an_answer_of_unknown_code_is_judged_by_its_status(
    status: int, kind: type[BrokkrError], problem: dict[str, object]
) -> None:
    assert type(error_of(status, problem)) is kind


@pytest.mark.parametrize(("status", "is_named"), [(500, True), (503, True), (404, False)])
def test_what_went_wrong_at_the_broker_can_be_found_in_its_log(status: int, is_named: bool) -> None:
    error = error_of(status, {"detail": "it failed", "request_id": "r-1"})

    assert str(error) == ("it failed (request r-1)" if is_named else "it failed")
    assert vars(error) == {}
