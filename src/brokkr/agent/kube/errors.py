"""
What can go wrong at an API server, as facts that callers treat differently.

::

    KubeError
    ├── KubeNotFound         404  there is no such object
    │   └── KubeNamespaceMissing  ... for its namespace does not exist
    ├── KubeKindUnknown      404  ... not even the kind: its CRD is not installed
    ├── KubeConflict         409  the object is not the one that was meant any more
    ├── KubeAlreadyExists    409  the name is taken
    ├── KubeForbidden        401, 403
    │   ├── KubeUnauthorized     401: the credentials are not valid
    │   ├── KubeNotPermitted     no role allows this verb on this resource
    │   ├── KubeQuotaExceeded    a quota of the namespace is used up
    │   └── KubeTerminating      the namespace is being deleted
    ├── KubeInvalid          any other 4xx: the same request will fail again
    ├── KubeExpired          410  this point of the history is gone: list again
    ├── KubeUnavailable      no answer in time, 405, 429 or 5xx: try again later
    │   ├── KubeBusy         429: the API server answers, and has no time
    │   └── KubeSilent       a watch on which nothing came for too long
    └── KubeConfigInvalid    nothing was sent: the configuration is not usable

The HTTP library's own errors stop in :mod:`brokkr.agent.kube.client`.
"""

import re
from collections.abc import Mapping
from datetime import timedelta
from http import HTTPStatus
from typing import Any, Final


class KubeError(Exception):
    """Base of what :class:`~brokkr.agent.kube.client.KubeClient` raises."""


class KubeNotFound(KubeError):
    """There is no object of this name, or no such namespace."""


class KubeNamespaceMissing(KubeNotFound):
    """The namespace of an object that was to be created does not exist."""


class KubeKindUnknown(KubeError):
    """The API server does not serve this kind at all; nothing is known about objects."""


class KubeConflict(KubeError):
    """The object has changed, or is another one of the same name: observe again."""


class KubeAlreadyExists(KubeError):
    """An object of this name exists."""


class KubeForbidden(KubeError):
    """These credentials may not do this, or are none."""


class KubeUnauthorized(KubeForbidden):
    """The API server does not know who we are: the credentials have expired, or are wrong."""


class KubeNotPermitted(KubeForbidden):
    """
    No role allows this.  It says nothing about the object.

    Attributes:
        verb: As in a role: ``create``.
        resource: As :class:`~brokkr.agent.kinds.Resource` writes it; ``/status`` follows.
    """

    def __init__(self, message: str, *, verb: str, resource: str) -> None:
        super().__init__(message)
        self.verb = verb
        self.resource = resource


class KubeQuotaExceeded(KubeForbidden):
    """A quota of the namespace leaves no room for another object."""


class KubeTerminating(KubeForbidden):
    """The namespace is being deleted: nothing can be created in it."""


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


class KubeBusy(KubeUnavailable):
    """The API server has too much to do: it is there, and slow."""


class KubeSilent(KubeUnavailable):
    """Nothing came on a watch for so long that it may be dead; or nothing has happened."""


class KubeConfigInvalid(KubeError):
    """There is no usable configuration; the message says what is wrong with which file."""


# While a definition is being deleted, its objects may not be created: 405.
_FOR_NOW: Final = HTTPStatus.METHOD_NOT_ALLOWED

# From apiserver's responsewriters and its quota admission; both have no code of their own.
_NOT_PERMITTED: Final = re.compile(
    r"cannot (?P<verb>[a-z]+) resource \"(?P<plural>[^\"/]+)(?P<part>/[^\"]+)?\""
    r" in API group \"(?P<group>[^\"]*)\""
)
_QUOTA: Final = re.compile("exceeded quota: |status unknown for quota: ")


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
    if code == HTTPStatus.TOO_MANY_REQUESTS:
        return KubeBusy(message, retry_after=retry_after)
    if code >= HTTPStatus.INTERNAL_SERVER_ERROR or code == _FOR_NOW:
        return KubeUnavailable(message, retry_after=retry_after)
    match code:
        case HTTPStatus.NOT_FOUND:
            return _not_found(message, status)
        case HTTPStatus.CONFLICT if status.get("reason") == "AlreadyExists":
            return KubeAlreadyExists(message)
        case HTTPStatus.CONFLICT:
            return KubeConflict(message)
        case HTTPStatus.UNAUTHORIZED | HTTPStatus.FORBIDDEN:
            return _forbidden(code, message, status)
        case HTTPStatus.GONE:
            return KubeExpired(message)
        case _:
            return KubeInvalid(message)


def _not_found(message: str, status: Mapping[str, Any]) -> KubeError:
    details = _details(status)
    if details.get("kind") == "namespaces":
        return KubeNamespaceMissing(message)
    # Only a missing object is answered with its name.
    return KubeNotFound(message) if details.get("name") else KubeKindUnknown(message)


def _forbidden(code: int, message: str, status: Mapping[str, Any]) -> KubeForbidden:
    if code == HTTPStatus.UNAUTHORIZED:
        return KubeUnauthorized(message)
    causes = _details(status).get("causes") or ()
    if any(each.get("reason") == "NamespaceTerminating" for each in causes):
        return KubeTerminating(message)
    if _QUOTA.search(message):
        return KubeQuotaExceeded(message)
    if found := _NOT_PERMITTED.search(message):
        group = f".{found['group']}" if found["group"] else ""
        resource = f"{found['plural']}{group}{found['part'] or ''}"
        return KubeNotPermitted(message, verb=found["verb"], resource=resource)
    return KubeForbidden(message)


def _details(status: Mapping[str, Any]) -> Mapping[str, Any]:
    return status.get("details") or {}
