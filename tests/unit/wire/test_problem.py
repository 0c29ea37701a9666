import json
import subprocess
import sys
from collections.abc import Iterator

import pytest

from brokkr.broker.app import create_app
from brokkr.broker.settings import BrokerSettings
from brokkr.wire.problem import CODES, STATUS, problem_of, read_problem, status_of
from brokkr.work.errors import (
    AgentDrained,
    AgentNameTaken,
    AgentNotFound,
    AgentSuperseded,
    BodyEncoded,
    BodyTooLarge,
    BrokerFailed,
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
    MethodNotAllowed,
    NoSuchEndpoint,
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
    AgentSuperseded("a-1"),
    BodyEncoded("gzip"),
    BodyTooLarge(1024),
    BrokerUnavailable("no answer"),
    BrokerFailed("it failed"),
    ClaimLost("w-1", "PENDING"),
    Conflict("too late"),
    DatabaseUnavailable("no answer"),
    InvalidAgent("labels.gpu", "is wrong"),
    InvalidInput("field", "is wrong"),
    InvalidWork("template.spec", "is wrong"),
    MalformedBody("not JSON"),
    MethodNotAllowed("no PUT /work"),
    NoSuchEndpoint("no GET /nowhere"),
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
    assert {type(error) for error in ONE_OF_EACH} | {BrokkrError} == set(all_kinds())


def test_every_error_has_its_code_in_the_table_and_no_two_have_one() -> None:
    kinds = [each for each in all_kinds() if each is not BrokkrError]

    assert {each.code: each for each in kinds} == dict(CODES)
    assert len(kinds) == len(CODES)


def test_the_client_alone_knows_every_code() -> None:
    """What a program has imported decides nothing."""
    program = (
        "import brokkr.client\n"
        "from brokkr.wire.problem import read_problem, CODES\n"
        "import json, sys\n"
        "sent = json.load(sys.stdin)\n"
        "print(json.dumps({c: type(read_problem(s, {'code': c})).__name__ for c, s in sent}))\n"
    )
    sent = [(code, status_of(error)) for error in ONE_OF_EACH for code in [error.code]]
    told = [*the_codes_of_the_description()]

    done = subprocess.run(
        [sys.executable, "-c", program],
        input=json.dumps(sent),
        capture_output=True,
        text=True,
        check=True,
    )

    assert json.loads(done.stdout) == {each.code: type(each).__name__ for each in ONE_OF_EACH}
    assert sorted(told) == sorted(each.code for each in ONE_OF_EACH)


def the_codes_of_the_description() -> list[str]:
    description = create_app(BrokerSettings(), database_url="").openapi()
    refused = description["paths"]["/api/v1/work"]["get"]["responses"]["4XX"]
    code = refused["content"]["application/problem+json"]["schema"]["properties"]["code"]
    codes: list[str] = code["x-extensible-enum"]
    return codes


@pytest.mark.parametrize("error", ONE_OF_EACH, ids=lambda error: error.code)
def test_what_the_broker_raises_is_what_the_client_raises(error: BrokkrError) -> None:
    sent = json.loads(json.dumps(problem_of(error, broker="b-1")))

    received = read_problem(sent["status"], sent)

    assert type(received) is type(error)
    assert str(received) == str(error)
    assert received.broker == "b-1"
    assert vars(received) == {**vars(error), "broker": "b-1"}


@pytest.mark.parametrize("error", ONE_OF_EACH, ids=lambda error: error.code)
def test_every_error_has_a_status(error: BrokkrError) -> None:
    assert any(isinstance(error, kind) for kind in STATUS)
    assert problem_of(error)["status"] == status_of(error)


@pytest.mark.parametrize("error", ONE_OF_EACH, ids=lambda error: error.code)
@pytest.mark.parametrize(
    "status", [200, 302, 400, 401, 403, 404, 405, 409, 410, 422, 429, 500, 502]
)
def test_a_code_with_the_status_of_another_is_nobodys_word(error: BrokkrError, status: int) -> None:
    if status != status_of(error):
        assert read_problem(status, {"code": error.code}) is None
        assert read_problem(status_of(error), {"code": error.code, "status": status}) is None


@pytest.mark.parametrize("status", [200, 400, 401, 403, 404, 409, 410, 422, 429, 500, 503, 504])
@pytest.mark.parametrize(
    "document",
    [
        None,
        [],
        "claim_lost",
        {},
        {"title": "Conflict"},
        {"code": "from_the_future"},
        {"code": ["claim_lost"]},
        {"code": None, "family": ["claim_lost", "not_found", "invalid"]},
        {"code": "error"},
        {"code": "x", "family": "claim_lost"},
        {"code": "x", "family": [["claim_lost"], None, 5]},
        {"code": "x", "family": {"claim_lost": "not_found"}},
    ],
)
def test_what_has_no_code_of_this_api_is_nobodys_word(status: int, document: object) -> None:
    assert read_problem(status, document) is None


def test_a_code_from_the_future_counts_as_the_nearest_of_its_family_that_is_known() -> None:
    ends = {"code": "claim_stolen", "family": ["claim_gone", "claim_lost", "conflict"]}
    other = {"code": "work_frozen", "family": ["conflict"]}

    assert type(read_problem(409, {**ends, "work_id": "w-1"})) is ClaimLost
    assert type(read_problem(409, other)) is Conflict
    assert read_problem(404, ends) is None


def test_each_problem_says_what_it_is_a_case_of() -> None:
    families = {each.code: problem_of(each)["family"] for each in ONE_OF_EACH}

    assert families["claim_lost"] == ["conflict"]
    assert families["work_not_found"] == ["not_found"]
    assert families["database_unavailable"] == ["broker_unavailable"]
    # An unknown path is no unknown Work.
    assert families["no_such_endpoint"] == []
    assert families["method_not_allowed"] == ["no_such_endpoint"]


@pytest.mark.parametrize(("status", "is_named"), [(500, True), (404, False)])
def test_what_went_wrong_at_the_broker_can_be_found_in_its_log(status: int, is_named: bool) -> None:
    code = {500: "internal_error", 404: "not_found"}[status]
    error = read_problem(status, {"code": code, "detail": "it failed", "request_id": "r-1"})

    assert str(error) == ("it failed (request r-1)" if is_named else "it failed")
    assert vars(error) == {}


def test_a_document_replaces_nothing_that_an_exception_has() -> None:
    error = read_problem(404, {"code": "not_found", "args": 5, "with_traceback": "x", "extra": 1})

    assert vars(error) == {"extra": 1}
    with pytest.raises(NotFound):
        raise error.with_traceback(None) if error else AssertionError


@pytest.mark.parametrize("broker", [None, 5, ["the-broker"], {}])
def test_who_does_not_say_his_name_in_words_has_none(broker: object) -> None:
    error = read_problem(409, {"code": "claim_lost", "broker": broker})

    assert error is not None
    assert error.broker is None


def test_no_secret_that_was_sent_comes_back_in_a_problem() -> None:
    problem = problem_of(InvalidInput("https://ci:secret-1@git.example", "https://x:secret-2@h/"))

    assert "git.example" in problem["field"]
    assert "secret" not in json.dumps(problem)
