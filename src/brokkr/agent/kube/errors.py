"""
What can go wrong at an API server, as facts that callers treat differently.

::

    KubeError
    ├── KubeNotFound         404  there is no such object
    ├── KubeKindUnknown      404  ... not even the kind: its CRD is not installed
    ├── KubeConflict         409  the object is not the one that was meant any more
    ├── KubeAlreadyExists    409  the name is taken
    ├── KubeForbidden        401, 403
    ├── KubeInvalid          any other 4xx: the same request will fail again
    ├── KubeExpired          410  this point of the history is gone: list again
    ├── KubeUnavailable      no answer in time, 405, 429 or 5xx: try again later
    └── KubeConfigInvalid    nothing was sent: the configuration is not usable

The HTTP library's own errors stop in :mod:`brokkr.agent.kube.client`.
"""

from collections.abc import Mapping
from datetime import timedelta
from http import HTTPStatus
from typing import Any, Final


class KubeError(Exception):
    """Base of what :class:`~brokkr.agent.kube.client.KubeClient` raises."""


class KubeNotFound(KubeError):
    """There is no object of this name, or no such namespace."""


class KubeKindUnknown(KubeError):
    """The API server does not serve this kind at all; nothing is known about objects."""


class KubeConflict(KubeError):
    """The object has changed, or is another one of the same name: observe again."""


class KubeAlreadyExists(KubeError):
    """An object of this name exists."""


class KubeForbidden(KubeError):
    """These credentials may not do this, or are none."""


class KubeInvalid(KubeError):
    """The API server refuses the request itself, in the words of the message."""


class KubeExpired(KubeError):
    """The resource version to go on from is too old."""


class KubeUnavailable(KubeError):
    """
    The API server did not answer, or could not.  The request may have been carried out.

    Attributes:
        retry_after: How long the server asked to be left alone, if it did.
    """

    def __init__(self, message: str, *, retry_after: timedelta | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class KubeConfigInvalid(KubeError):
    """There is no usable configuration; the message says what is wrong with which file."""


# While a definition is being deleted, its objects may not be created: 405.
_FOR_NOW: Final = (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.METHOD_NOT_ALLOWED)


def error_of(
    code: int, status: Mapping[str, Any], *, retry_after: timedelta | None = None
) -> KubeError:
    """
    Translate a ``Status`` object, from a response or from a watch.

    Args:
        code: The HTTP status code, or the ``code`` of the event.
        status: The object; empty if the response carried none.
    """
    message = status.get("message") or f"HTTP {code}"
    if code >= HTTPStatus.INTERNAL_SERVER_ERROR or code in _FOR_NOW:
        return KubeUnavailable(message, retry_after=retry_after)
    match code:
        case HTTPStatus.NOT_FOUND if not (status.get("details") or {}).get("name"):
            # Only a missing object is answered with its name.
            return KubeKindUnknown(message)
        case HTTPStatus.NOT_FOUND:
            return KubeNotFound(message)
        case HTTPStatus.CONFLICT if status.get("reason") == "AlreadyExists":
            return KubeAlreadyExists(message)
        case HTTPStatus.CONFLICT:
            return KubeConflict(message)
        case HTTPStatus.UNAUTHORIZED | HTTPStatus.FORBIDDEN:
            return KubeForbidden(message)
        case HTTPStatus.GONE:
            return KubeExpired(message)
        case _:
            return KubeInvalid(message)
