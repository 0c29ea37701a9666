"""Conditions of a Work: facts over time, whose times move only when the fact does."""

from datetime import datetime
from typing import Final

from brokkr.work.model import Condition

TEMPLATE_APPLIED: Final = "TemplateApplied"
"""Did the cluster take the objects of the template?  ``Applied`` or ``Refused``."""

TEMPLATE_SUCCEEDED: Final = "TemplateSucceeded"
"""Did they do what they are for?  Unknown while an attempt is under way."""

REFUSED: Final = "Refused"


def with_condition(
    conditions: tuple[Condition, ...],
    type: str,
    *,
    status: bool | None,
    reason: str,
    message: str,
    now: datetime,
) -> tuple[Condition, ...]:
    """Return the conditions with this one set; ``changed_at`` moves if ``status`` did."""
    before = find_condition(conditions, type)
    unmoved = before is not None and before.status == status
    after = Condition(
        type=type,
        status=status,
        reason=reason,
        message=message,
        changed_at=before.changed_at if before is not None and unmoved else now,
    )
    if before is None:
        return (*conditions, after)
    return tuple(after if each.type == type else each for each in conditions)


def find_condition(conditions: tuple[Condition, ...], type: str) -> Condition | None:
    """Return the condition of this type, or None."""
    return next((each for each in conditions if each.type == type), None)
