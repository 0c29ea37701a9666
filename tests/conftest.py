"""Plugins and markers; no fixtures of its own."""

import pytest

pytest_plugins = ["support.broker", "support.kube", "support.postgres"]

_MARKED_BY_FIXTURE = {"control_plane": "kube", "postgres_server": "postgres"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark a test by what it asks for."""
    for item in items:
        for fixture in getattr(item, "fixturenames", ()):
            if fixture in _MARKED_BY_FIXTURE:
                item.add_marker(_MARKED_BY_FIXTURE[fixture])
