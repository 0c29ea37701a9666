"""The work types that this agent can run."""

from brokkr.agent.handlers.build.handler import BuildHandler
from brokkr.agent.handlers.build.manifests import BuildDefaults
from brokkr.agent.handlers.protocol import Handler


def handlers(build: BuildDefaults) -> dict[str, Handler]:
    """Return each work type's handler."""
    return {"build": BuildHandler(build)}
