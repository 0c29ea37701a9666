"""What is to be submitted, in the forms that people have it, as the body of a request."""

import os
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, TypeAlias, TypedDict, TypeVar

from pydantic import BaseModel, ValidationError

from brokkr.wire.bodies import SubmitWork, TargetBody
from brokkr.wire.documents import parse_yaml, template_of
from brokkr.work.errors import InvalidInput, InvalidWork, MalformedBody

_Body = TypeVar("_Body", bound=BaseModel)

TemplateSource: TypeAlias = str | os.PathLike[str] | Mapping[str, Any] | Sequence[Mapping[str, Any]]
"""YAML or JSON text, the path of a file of it, an object, or several; a str is never a path."""

TargetSource: TypeAlias = Mapping[str, str] | TargetBody | Sequence[TargetBody]
"""Labels that the agent must have; or all that a target can say; or several, of which one holds."""


class SubmitOptions(TypedDict, total=False):
    """
    What may be said of a Work beside its template and target; the rest is the broker's to decide.

    Attributes:
        work_type: ``build`` unless given.
        labels: The Work's own, to find it by.
        max_retries: How many failures the agent forgives.
        max_handoffs: How often another agent may try after a retryable failure.
        priority: Higher goes first, -100 to 100.
        not_before: Not to be claimed earlier; a time with a zone.
        start_within_seconds: If nobody claims it for so long, it ends as expired.
        claim_timeout_seconds: How long a silent agent keeps it.
        idempotency_key: With the same key the broker returns the same Work again.
        traceparent: The trace that it is part of (W3C); one that cannot be read is ignored.
    """

    work_type: str
    labels: Mapping[str, str]
    max_retries: int
    max_handoffs: int
    priority: int
    not_before: datetime
    start_within_seconds: int
    claim_timeout_seconds: int
    idempotency_key: str
    traceparent: str


def submission_of(template: TemplateSource, target: TargetSource, **fields: Any) -> SubmitWork:
    """
    Make the body of a submission.

    Raises:
        InvalidInput: Something is missing or out of bounds, or a file cannot be read.
        MalformedBody: The template is not YAML.
    """
    if isinstance(target, Mapping):
        target = body_of(TargetBody, match_labels=dict(target))
    return body_of(
        SubmitWork,
        **{"work_type": "build", **fields},
        template=template_from(template),
        target=target,
    )


def template_from(source: TemplateSource) -> dict[str, Any]:
    """
    Make one template of whatever it was given as.

    Raises:
        InvalidInput: It cannot be read, is empty, or holds something else than objects.
        MalformedBody: It is not YAML.
    """
    match source:
        case os.PathLike():
            return read_template(Path(source))
        case str():
            return parse_template(source, name="template")
        case Mapping():
            return dict(source)
        case _:
            return dict(template_of(list(source)))


def read_template(file: Path) -> dict[str, Any]:
    """
    Read the objects of a YAML or JSON file.

    Raises:
        InvalidInput: It cannot be read, is empty, or holds something else than objects.
        MalformedBody: It is not YAML.
    """
    try:
        content = file.read_bytes()
    except OSError as error:
        raise InvalidInput(str(file), error.strerror or str(error)) from error
    return parse_template(content, name=str(file))


def parse_template(content: str | bytes, *, name: str) -> dict[str, Any]:
    """
    Read the objects of YAML or JSON text; ``name`` says in errors what is wrong.

    Raises:
        InvalidInput: It is empty, or holds something else than objects.
        MalformedBody: It is not YAML.
    """
    try:
        return dict(template_of(parse_yaml(content)))
    except InvalidWork as error:
        raise InvalidInput(name, error.problem) from error
    except MalformedBody as error:
        raise MalformedBody(f"{name}: {error}") from error


def body_of(model: type[_Body], **fields: Any) -> _Body:
    """
    Make the body of a request.

    Raises:
        InvalidInput: Something is out of bounds.
    """
    try:
        return model.model_validate(fields)
    except ValidationError as error:
        first = error.errors()[0]
        raise InvalidInput(".".join(map(str, first["loc"])), first["msg"]) from error
