"""
What the operator of an agent lets builds name: registries, repositories, and the rest.

Optional: a list that is not given allows everything.  A template that names anything
else is refused for good, before an object is made of it.
"""

# Note [By the names of keys]
#
# There are many places in a Build and a BuildRun where a Secret can be named, and each
# release of Kubernetes may bring another one, in a volume for example.  A list of paths
# would have to be complete; so what a value means is told from its key alone, wherever
# it stands: every key with "secret" in it names Secrets, every ``image`` an image.  What
# that catches beyond need (the image of an RBD volume, say) is refused rather than
# missed.  Left out is only what can hold no name of an object: ConfigMaps, metadata, and
# three maps whose keys are the user's own words.
#
# Note [One reading of an address]
#
# Git, HTTP libraries and registry clients read odd addresses differently, and one that
# is read differently here gets around the list.  So there is a strict grammar for the
# usual forms, and an address outside of it is on no list: user information before an
# HTTP host, a backslash after one, anything that is not ASCII, transports of Git's such
# as ``ext::``.  Hosts are compared in lower case and without the dot at their end.

import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from types import MappingProxyType
from typing import Any, Final

from brokkr.work.model import Manifest
from brokkr.work.template import documents

DOCKER_HUB: Final = "docker.io"
GENERATED_SERVICE_ACCOUNT: Final = ".generate"
"""What a BuildRun says for a ServiceAccount that Shipwright makes for it alone."""

_MAX_ADDRESS: Final = 2048
_MAX_SHOWN: Final = 200
_PORTS: Final[Mapping[str, int]] = MappingProxyType({"https": 443, "http": 80, "ssh": 22})

_HOST: Final = r"(?P<host>[A-Za-z0-9_][A-Za-z0-9_.-]*|\[[0-9A-Fa-f:.]+\])"
_PORT: Final = r"(?::(?P<port>[0-9]{1,5}))?"
_USER: Final = r"(?:(?P<user>[A-Za-z0-9][A-Za-z0-9._-]*)@)?"
_VISIBLE: Final = "[!-~]"
_ADDRESS = re.compile(_HOST + _PORT)
_URL = re.compile(
    rf"(?P<scheme>(?i:https?|ssh))://{_USER}{_HOST}{_PORT}(?:/{_VISIBLE}*)?", re.ASCII
)
# A second colon would make the host a transport's name, two slashes a scheme.
_SCP = re.compile(rf"{_USER}{_HOST}:(?!:|//){_VISIBLE}+")
_PATH_PART: Final = r"[a-z0-9]+(?:(?:\.|__?|-+)[a-z0-9]+)*"
_IMAGE_PATH = re.compile(
    rf"(?P<path>{_PATH_PART}(?:/{_PATH_PART})*)"
    r"(?::[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(?:@[A-Za-z0-9+._-]+:[0-9A-Fa-f]{32,})?"
)
_OBJECT_NAME = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?")

_FREE_MAPS: Final = frozenset(
    {"spec.nodeSelector", "spec.output.labels", "spec.output.annotations"}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildPolicy:
    """What builds may name, as patterns with ``*`` and ``?``.

    None allows everything, an empty tuple nothing.

    Attributes:
        registries: ``host[:port]`` or ``host[:port]/path`` of images, sources as well as
            outputs.
        git_hosts: ``host[:port]`` of repositories.
        strategies: ``name`` or ``kind/name``.
        secrets: Names, whatever the Secret is for.
    """

    registries: tuple[str, ...] | None = None
    git_hosts: tuple[str, ...] | None = None
    strategies: tuple[str, ...] | None = None
    service_accounts: tuple[str, ...] | None = None
    secrets: tuple[str, ...] | None = None


ANYTHING_GOES: Final = BuildPolicy()


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyViolation:
    """A template names something that the agent's policy does not allow.

    Attributes:
        rule: The setting that does not allow it.
        field: Where it is named, as in errors of :mod:`brokkr.work.template`.
        value: What is named, shortened.
    """

    rule: str
    field: str
    value: str
    allowed: tuple[str, ...]

    def __str__(self) -> str:
        allowed = ", ".join(self.allowed) or "nothing"
        return f"{self.field}: {self.value} is not allowed by {self.rule}; allowed: {allowed}"


def check_policy(template: Manifest, policy: BuildPolicy) -> PolicyViolation | None:
    """
    Return the first thing in a template that the policy does not allow.

    The template has passed :func:`brokkr.work.template.check_template`; what is of a
    wrong type nonetheless is allowed by no list.
    """
    for rule, field, value in _named(template):
        allowed: tuple[str, ...] | None = getattr(policy, rule)
        if allowed is not None and not _IS_ALLOWED[rule](value, allowed):
            return PolicyViolation(
                rule=f"agent.policy.{rule}",
                field=field,
                value=repr(value)[:_MAX_SHOWN],
                allowed=allowed,
            )
    return None


def _named(template: Manifest) -> Iterator[tuple[str, str, Any]]:
    """Yield what a template names: the rule for it, where it stands, and the value."""
    found = documents(template)
    for index, document in enumerate(found):
        if (document.get("apiVersion"), document.get("kind")) == ("v1", "ConfigMap"):
            continue
        base = "template" if document is template else f"template.items[{index}]"
        rest: deque[tuple[str, Any]] = deque(
            [("", {key: each for key, each in document.items() if key != "metadata"})]
        )
        while rest:
            path, value = rest.popleft()
            if isinstance(value, list):
                rest.extend((f"{path}[{n}]", each) for n, each in enumerate(value))
            elif isinstance(value, Mapping):
                for key, each in value.items():
                    below = f"{path}.{key}" if path else str(key)
                    if below in _FREE_MAPS:
                        continue
                    for rule, where, name in _named_by(str(key).lower(), each):
                        yield rule, f"{base}.{below}{where}", name
                    rest.append((below, each))


def _named_by(key: str, value: Any) -> Iterator[tuple[str, str, Any]]:
    """See Note [By the names of keys]."""
    match key:
        case _ if "secret" in key:
            named, rule = _leaves(value, ("name",)), "secrets"
        case "image":
            named, rule = _leaves(value, ("reference", "names")), "registries"
        case "url" | "repository":
            named, rule = _leaves(value), "git_hosts"
        case "serviceaccount" | "serviceaccountname":
            named, rule = _leaves(value), "service_accounts"
        case "strategy":
            named, rule = iter([("", value)] if value is not None else []), "strategies"
        case _:
            return
    for where, name in named:
        yield rule, where, name


def _leaves(value: Any, fields: tuple[str, ...] | None = None) -> Iterator[tuple[str, Any]]:
    """
    Yield the names that a value gives, each with where it stands.

    Args:
        fields: Where an object has its names; without any, an object is no name.
    """
    if isinstance(value, list):
        for index, each in enumerate(value):
            yield from ((f"[{index}]{where}", name) for where, name in _leaves(each, fields))
    elif isinstance(value, Mapping) and fields is not None:
        for field in fields:
            for where, name in _leaves(value.get(field)):
                yield f".{field}{where}", name
    elif value is not None:
        yield "", value


def _image_is_allowed(value: Any, patterns: Iterable[str]) -> bool:
    image = _parse_image(value)
    if image is None:
        return False
    hosts, path = image
    for pattern in patterns:
        # Apart from each other: a star for a host must not reach into the path.
        host_pattern, slash, path_pattern = pattern.partition("/")
        if _any_matches(hosts, host_pattern.lower()) and (
            not slash or _matches(path, path_pattern)
        ):
            return True
    return False


def _parse_image(value: Any) -> tuple[list[str], str] | None:
    """Split an image's name into what its registry may be called, and the path there."""
    if not isinstance(value, str) or len(value) > _MAX_ADDRESS:
        return None
    first, slash, rest = value.partition("/")
    # Container tools agree that this is what tells a host from the first part of a path.
    if slash and (set(first) & set(".:") or first == "localhost"):
        address = _ADDRESS.fullmatch(first)
        hosts = [] if address is None else _hosts(address, default_port=_PORTS["https"])
    else:
        hosts, rest = [DOCKER_HUB], value
    found = _IMAGE_PATH.fullmatch(rest)
    if not hosts or found is None:
        return None
    path = found["path"]
    if hosts[0] in (DOCKER_HUB, f"index.{DOCKER_HUB}"):
        hosts = [DOCKER_HUB, f"{DOCKER_HUB}:443"]
        path = path if "/" in path else f"library/{path}"
    return hosts, path


def _repository_is_allowed(value: Any, patterns: Iterable[str]) -> bool:
    hosts = _parse_repository(value)
    return any(_any_matches(hosts, pattern.lower()) for pattern in patterns)


def _parse_repository(value: Any) -> list[str]:
    """Return what the host of a repository may be called; nothing if there is none."""
    if not isinstance(value, str) or len(value) > _MAX_ADDRESS:
        return []
    if url := _URL.fullmatch(value):
        scheme = url["scheme"].lower()
        if url["user"] is not None and scheme != "ssh":
            return []
        return _hosts(url, default_port=_PORTS[scheme])
    if scp := _SCP.fullmatch(value):
        return _hosts(scp, default_port=_PORTS["ssh"])
    return []


def _hosts(found: re.Match[str], *, default_port: int) -> list[str]:
    """
    Return what a pattern may call this host; nothing if there can be no such host.

    With its port in any case, and without it if the port is the usual one.
    """
    host = found["host"].lower().removesuffix(".")
    given = found.groupdict().get("port")
    port = default_port if given is None else int(given)
    if not host or ".." in host or host.endswith(".") or not 0 < port < 65536:
        return []
    with_port = f"{host}:{port}"
    return [host, with_port] if port == default_port else [with_port]


def _strategy_is_allowed(value: Any, patterns: Iterable[str]) -> bool:
    if not isinstance(value, Mapping):
        return False
    name, kind = value.get("name"), value.get("kind")
    if kind is None:
        kind = "BuildStrategy"  # as Shipwright reads it
    if not (isinstance(kind, str) and isinstance(name, str) and _OBJECT_NAME.fullmatch(name)):
        return False
    for pattern in patterns:
        kind_pattern, slash, name_pattern = pattern.rpartition("/")
        if _matches(name, name_pattern) and (not slash or _matches(kind, kind_pattern)):
            return True
    return False


def _service_account_is_allowed(value: Any, patterns: Iterable[str]) -> bool:
    if value == GENERATED_SERVICE_ACCOUNT:
        return any(_matches(GENERATED_SERVICE_ACCOUNT, pattern) for pattern in patterns)
    return _object_is_allowed(value, patterns)


def _object_is_allowed(value: Any, patterns: Iterable[str]) -> bool:
    return (
        isinstance(value, str)
        and _OBJECT_NAME.fullmatch(value) is not None
        and any(_matches(value, pattern) for pattern in patterns)
    )


def _any_matches(texts: Iterable[str], pattern: str) -> bool:
    return any(_matches(text, pattern) for text in texts)


def _matches(text: str, pattern: str) -> bool:
    """Match ``*`` and ``?``; brackets, which ``fnmatch`` knows too, mean themselves.

    It never tries a star's end twice, so that no pattern takes more than linear time.
    """
    return fnmatchcase(text, pattern.replace("[", "[[]"))


_IS_ALLOWED: Final[Mapping[str, Callable[[Any, Iterable[str]], bool]]] = MappingProxyType(
    {
        "registries": _image_is_allowed,
        "git_hosts": _repository_is_allowed,
        "strategies": _strategy_is_allowed,
        "service_accounts": _service_account_is_allowed,
        "secrets": _object_is_allowed,
    }
)
