"""
Read the configuration: flags over environment over file over defaults.

Owns where values come from, and errors that name that place.  What can be configured is
said by the model that the caller brings: its sections, keys, units and defaults.

The file is TOML.  The environment spells a key as its path: ``broker.data_dir`` is
``BROKKR__BROKER__DATA_DIR``.
"""

# Note [A working folder is not trusted]
#
# Anybody can put a brokkr.toml into a repository, and whoever works in a checkout of it would send
# their own key to the URL in that file.  So a secret from the command line, the environment, the
# file of `--config` or the user's file never goes where ./brokkr.toml alone says.  A file that
# holds both the secret and the URL sends away nothing but its own.

import difflib
import os
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, TypeAlias, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from brokkr.work.errors import BrokkrError

PREFIX: Final = "BROKKR__"
FILE_NAME: Final = "brokkr.toml"
SYSTEM_FILE: Final = Path("/etc/brokkr") / FILE_NAME
"""Trusted, although the image has its working folder there."""

_Model = TypeVar("_Model", bound=BaseModel)
_Path: TypeAlias = tuple[str, ...]


class InvalidConfiguration(BrokkrError):
    """
    Something in the configuration is wrong.

    Attributes:
        problems: One sentence for each: where it stands, the key, what is wrong with it.
    """

    code = "invalid_configuration"

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


def load(
    model: type[_Model],
    *,
    file: Path | None = None,
    environment: Mapping[str, str] | None = None,
    flags: Mapping[str, object] | None = None,
    sent_to: Mapping[str, tuple[str, ...]] | None = None,
) -> _Model:
    """
    Gather what is configured and check it against a model.

    Args:
        model: The sections as fields, each a model of its own that forbids other keys.
        file: The file to read; by default :func:`find_file` looks for one.
        environment: By default that of this process.
        flags: Values by dotted key; None is a flag that was not given.
        sent_to: By secret, the keys that decide where the caller sends it.  A secret is a dotted
            key or an environment variable.  See Note [A working folder is not trusted].

    Raises:
        InvalidConfiguration: Names all that is wrong.
    """
    environment = os.environ if environment is None else environment
    found = file or find_file(environment)
    tree: dict[str, Any] = {}
    origins: dict[_Path, str] = {}
    for origin, path, value in (
        *_from_file(found),
        *_from_environment(environment),
        *_from_flags(flags or {}),
    ):
        _put(tree, path, value)
        origins[path] = origin
    try:
        settings = model.model_validate(tree)
    except ValidationError as error:
        errors = error.errors(include_url=False, include_context=False, include_input=False)
        raise InvalidConfiguration([_sentence(each, model, origins) for each in errors]) from None
    is_trusted = file is not None or found != Path(FILE_NAME) or found.resolve() == SYSTEM_FILE
    astray = [] if is_trusted else list(_astray(sent_to or {}, origins, environment))
    if astray:
        raise InvalidConfiguration(astray)
    return settings


def _astray(
    sent_to: Mapping[str, tuple[str, ...]],
    origins: Mapping[_Path, str],
    environment: Mapping[str, str],
) -> Iterator[str]:
    """Name each secret from elsewhere that would go where the working folder's file says."""
    for secret, keys in sent_to.items():
        origin = origins.get(tuple(secret.split(".")), secret if environment.get(secret) else None)
        if origin in (None, FILE_NAME):
            continue
        for key in keys:
            if origins.get(tuple(key.split("."))) == FILE_NAME:
                what = secret if secret == origin else f"{secret} ({origin})"
                yield (
                    f"./{FILE_NAME}: {key}: {what} is not sent where a file in the working folder "
                    f"says, which may be somebody else's; set {key} where {secret} is set, or give "
                    f"--config {FILE_NAME} if you trust that file"
                )


def find_file(environment: Mapping[str, str]) -> Path | None:
    """Return the file of the working folder, else of the user's configuration folder, if any."""
    candidates = [Path(FILE_NAME)]
    with suppress(RuntimeError):  # an account without a home
        home = Path(environment.get("XDG_CONFIG_HOME") or "~/.config").expanduser()
        candidates.append(home / "brokkr" / FILE_NAME)
    return next(filter(_is_there, candidates), None)


def _is_there(file: Path) -> bool:
    with suppress(OSError):  # a folder that may not be looked into: a home of somebody else's
        return file.is_file()
    return False


def _from_file(file: Path | None) -> Iterator[tuple[str, _Path, object]]:
    if file is None:
        return
    try:
        tree = tomllib.loads(file.read_text())
    except OSError as error:
        raise InvalidConfiguration([f"{file}: {error.strerror}"]) from error
    except ValueError as error:  # not TOML, or not even UTF-8
        raise InvalidConfiguration([f"{file}: not valid TOML: {error}"]) from error
    for path, value in _leaves(tree, ()):
        yield str(file), path, value


def _leaves(tree: Mapping[str, Any], parent: _Path) -> Iterator[tuple[_Path, object]]:
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, (*parent, key))
        else:
            yield (*parent, key), value


def _from_environment(environment: Mapping[str, str]) -> Iterator[tuple[str, _Path, object]]:
    for name, value in sorted(environment.items()):
        if name.startswith(PREFIX):
            yield name, tuple(name.removeprefix(PREFIX).lower().split("__")), value


def _from_flags(flags: Mapping[str, object]) -> Iterator[tuple[str, _Path, object]]:
    for key, value in flags.items():
        if value is not None:
            yield "command line", tuple(key.split(".")), value


def _put(tree: dict[str, Any], path: _Path, value: object) -> None:
    *parents, last = path
    for key in parents:
        inner = tree.get(key)
        if not isinstance(inner, dict):
            inner = tree[key] = {}
        tree = inner
    tree[last] = value


def _sentence(error: ErrorDetails, model: type[BaseModel], origins: Mapping[_Path, str]) -> str:
    # Of a key that is wrong itself, pydantic says so with one more part.
    path = tuple(str(part) for part in error["loc"] if part != "[key]")
    origin = next(
        (name for known, name in origins.items() if known[: len(path)] == path[: len(known)]),
        "configuration",
    )
    key = ".".join(path)
    if error["type"] != "extra_forbidden":
        return f"{origin}: {key}: {error['msg'].removeprefix('Value error, ')}"
    known_keys = _keys_at(model, path[:-1])
    near = difflib.get_close_matches(path[-1], known_keys, n=1, cutoff=0.5)
    advice = f"did you mean {near[0]}?" if near else f"known are {', '.join(known_keys)}"
    return f"{origin}: {key} is not known; {advice}"


def _keys_at(model: type[BaseModel], path: _Path) -> list[str]:
    for key in path:
        inner = model.model_fields[key].annotation
        assert isinstance(inner, type)
        assert issubclass(inner, BaseModel)
        model = inner
    return list(model.model_fields)
