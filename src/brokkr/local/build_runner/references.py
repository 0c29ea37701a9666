"""Read the Secrets and ConfigMaps that a build refers to, or reject it for want of one."""

from base64 import b64decode
from dataclasses import dataclass, field

from brokkr.agent.kinds import CONFIG_MAPS, SECRETS
from brokkr.agent.kube.client import KubeClient
from brokkr.work.model import Manifest


@dataclass(eq=False)
class Rejected(Exception):
    """
    The BuildRun ends without a build.

    Attributes:
        build: The Build that was accepted before something else was not.
    """

    reason: str
    message: str
    build: "AcceptedBuild | None" = None


@dataclass(eq=False)
class NeverStarts(Exception):
    """
    Tekton refuses the TaskRun of this BuildRun whenever Shipwright tries, and nobody is told.

    Attributes:
        message: Why, for the runner's own log.
    """

    message: str
    build: "AcceptedBuild"


@dataclass(frozen=True)
class AcceptedBuild:
    """The Build that a BuildRun runs, and the labels that tell which one it was."""

    spec: Manifest
    labels: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class References:
    """
    The Secrets and ConfigMaps of one namespace.

    Each method raises :class:`Rejected` if what it is asked for is not there.
    """

    kube: KubeClient
    namespace: str

    async def secret(self, name: str | None) -> dict[str, bytes] | None:
        """Read a Secret that a step would have mounted."""
        if not name:
            return None
        secret = await self.kube.find(SECRETS, self.namespace, name)
        if secret is None:
            raise Rejected("VolumeDoesNotExist", f'secrets "{name}" not found')
        return {key: b64decode(value) for key, value in (secret.get("data") or {}).items()}

    async def item(self, item: Manifest) -> str:
        """Read a parameter's value, given as it is or by reference."""
        if "secretValue" in item:
            reference, placeholder = item["secretValue"], "${SECRET_VALUE}"
            value = await self.secret_key(reference)
        elif "configMapValue" in item:
            reference, placeholder = item["configMapValue"], "${CONFIGMAP_VALUE}"
            value = await self.config_map_key(reference)
        else:
            return str(item["value"])
        return str(reference.get("format") or placeholder).replace(placeholder, value)

    async def variable(self, variable: Manifest) -> str | None:
        """Read an environment variable's value; None if it may be missing, and is."""
        source = variable.get("valueFrom")
        if source is None:
            return str(variable.get("value", ""))
        for kind, read in (
            ("secretKeyRef", self.secret_key),
            ("configMapKeyRef", self.config_map_key),
        ):
            if kind in source:
                try:
                    return await read(source[kind])
                except Rejected:
                    if source[kind].get("optional"):
                        return None
                    raise
        raise Rejected(
            "TaskRunGenerationFailed",
            f"the local build runner cannot set {variable['name']} from {', '.join(source)}",
        )

    async def secret_key(self, reference: Manifest) -> str:
        """Read one key of a Secret."""
        name, key = reference.get("name", ""), reference["key"]
        secret = await self.kube.find(SECRETS, self.namespace, name)
        data = {} if secret is None else secret.get("data") or {}
        if key not in data:
            raise Rejected("CreateContainerConfigError", f'secret "{name}" has no key {key}')
        try:
            text = b64decode(data[key]).decode()
        except UnicodeDecodeError:
            text = "\0"
        if "\0" in text:
            raise Rejected(
                "TaskRunGenerationFailed",
                f"the local build runner cannot pass on key {key} of secret {name}: it is no text",
            )
        return text

    async def config_map_key(self, reference: Manifest) -> str:
        """Read one key of a ConfigMap."""
        name, key = reference.get("name", ""), reference["key"]
        config_map = await self.kube.find(CONFIG_MAPS, self.namespace, name)
        data = {} if config_map is None else config_map.get("data") or {}
        if key not in data:
            raise Rejected("CreateContainerConfigError", f'configmap "{name}" has no key {key}')
        return str(data[key])
