"""What users submit: Shipwright objects, valid by default."""

from typing import Any

from brokkr.work.model import Manifest
from support.factories import a_build_template


def a_build(*, spec: Manifest | None = None, **more: Any) -> dict[str, Any]:
    """Return a Build; ``spec`` adds to a valid one, the rest replaces whole fields."""
    return {**a_build_template(**(spec or {})), **more}


def a_build_run(*, spec: Manifest | None = None, **more: Any) -> dict[str, Any]:
    """Return a BuildRun as the pattern for the attempts' own."""
    return {
        "apiVersion": "shipwright.io/v1beta1",
        "kind": "BuildRun",
        "metadata": {"generateName": "hello-"},
        "spec": {"build": {"name": "hello"}, **(spec or {})},
        **more,
    }


def a_config_map(*, name: str = "settings", **more: Any) -> dict[str, Any]:
    """Return a ConfigMap."""
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, **more}


def a_list(*items: Manifest) -> dict[str, Any]:
    """Return a template of several documents."""
    return {"apiVersion": "v1", "kind": "List", "items": list(items)}
