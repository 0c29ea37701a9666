"""Plugins and markers; no fixtures of its own."""

import pytest
from hypothesis import HealthCheck, settings

# How long an example takes is the machine's affair, not the test's.
settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("any machine")
settings.register_profile("thorough", max_examples=5000)  # --hypothesis-profile=thorough
settings.register_profile("deep", max_examples=2000)  # of `make hostile`

pytest_plugins = [
    "support.broker",
    "support.kube",
    "support.postgres",
    "support.agent",
    "support.local",
    "support.any_cluster",
]

_ONLY_WHEN_ASKED_FOR = ("cluster", "image", "scale")
_MARKED_BY_FIXTURE = {"control_plane": "kube", "postgres_server": "postgres"}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark a test by what it asks for, and leave out what is run only when asked for."""
    for mark in _ONLY_WHEN_ASKED_FOR:
        if mark not in config.option.markexpr:
            items[:] = [item for item in items if not item.get_closest_marker(mark)]
    for item in items:
        for fixture in getattr(item, "fixturenames", ()):
            if fixture in _MARKED_BY_FIXTURE:
                item.add_marker(_MARKED_BY_FIXTURE[fixture])
