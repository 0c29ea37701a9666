"""
Which API server, and as whom: kubeconfig files and in-cluster service accounts.

Looked for in this order: the file that was asked for, ``KUBECONFIG``, the service account
of the pod we run in, ``~/.kube/config``.
"""

import base64
import binascii
import os
import ssl
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from brokkr.agent.kube.credentials import Credentials, ExecPlugin, FixedToken, TokenFile
from brokkr.agent.kube.errors import KubeConfigInvalid

_SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


@dataclass(frozen=True, slots=True, kw_only=True)
class KubeConfig:
    """One API server, and who we are there.

    Attributes:
        own_namespace: The namespace of the pod we run in; None outside of pods.
    """

    server: str
    tls: ssl.SSLContext | None = None
    own_namespace: str | None = None
    credentials: Credentials = field(default_factory=lambda: FixedToken(None))

    @classmethod
    def load(cls, path: Path | None = None) -> "KubeConfig":
        """
        Find the configuration and read it.

        Raises:
            KubeConfigInvalid: There is none, or something is wrong with it.
        """
        if path is not None:
            return _from_files([path])
        if variable := os.environ.get("KUBECONFIG"):
            return _from_files(Path(each) for each in variable.split(os.pathsep) if each)
        if "KUBERNETES_SERVICE_HOST" in os.environ and (_SERVICE_ACCOUNT / "token").exists():
            return _in_cluster()
        home = Path.home() / ".kube" / "config"
        if home.exists():
            return _from_files([home])
        raise KubeConfigInvalid(
            "no cluster is configured: name a kubeconfig file, set KUBECONFIG, or run in a pod "
            "with a service account"
        )


def _in_cluster() -> KubeConfig:
    host = os.environ["KUBERNETES_SERVICE_HOST"]
    port = os.environ.get("KUBERNETES_SERVICE_PORT", "443")
    return KubeConfig(
        server=f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}",
        tls=ssl.create_default_context(cadata=_read(_SERVICE_ACCOUNT / "ca.crt").decode()),
        own_namespace=_read(_SERVICE_ACCOUNT / "namespace").decode().strip(),
        credentials=TokenFile(_SERVICE_ACCOUNT / "token"),
    )


def _from_files(paths: Iterable[Path]) -> KubeConfig:
    """Read kubeconfig files; what an earlier one says wins, as it does for kubectl."""
    named: dict[tuple[str, str], _Entry] = {}
    current = ""
    for path in paths:
        document = _document(path)
        current = current or document.get("current-context") or ""
        for section in ("clusters", "users", "contexts"):
            for each in document.get(section) or ():
                content = each.get(section[:-1]) or {}
                named.setdefault((section, each.get("name")), _Entry(path, content))
    if not current:
        raise KubeConfigInvalid("the kubeconfig has no current-context")

    def entry(section: str, name: str) -> _Entry:
        try:
            return named[section, name]
        except KeyError:
            raise KubeConfigInvalid(f"the kubeconfig has no {name!r} among its {section}") from None

    context = entry("contexts", current).content
    cluster = entry("clusters", context.get("cluster", ""))
    user = entry("users", context.get("user", ""))
    server = cluster.content.get("server")
    if not server:
        raise KubeConfigInvalid(f"{cluster.path}: the cluster has no server")
    return KubeConfig(
        server=server.rstrip("/"),
        tls=_tls(cluster, user) if server.startswith("https://") else None,
        credentials=_credentials(user),
    )


@dataclass(frozen=True, slots=True)
class _Entry:
    """One cluster, user or context, and the file that it stands in."""

    path: Path
    content: Mapping[str, Any]

    def file(self, key: str) -> Path | None:
        """Return a path that it names; a relative one begins at the file's folder."""
        value = self.content.get(key)
        return self.path.parent / value if value else None

    def bytes_of(self, key: str) -> bytes | None:
        """Return what it holds under ``key-data``, or in the file that ``key`` names."""
        if data := self.content.get(f"{key}-data"):
            try:
                return base64.b64decode(data, validate=True)
            except binascii.Error as error:
                raise KubeConfigInvalid(f"{self.path}: {key}-data is not base64") from error
        file = self.file(key)
        return None if file is None else _read(file)


def _credentials(user: _Entry) -> Credentials:
    if token := user.content.get("token"):
        return FixedToken(token)
    if (file := user.file("tokenFile")) is not None:
        return TokenFile(file)
    if spec := user.content.get("exec"):
        if not spec.get("command"):
            raise KubeConfigInvalid(f"{user.path}: the exec plugin has no command")
        return ExecPlugin(spec)
    for name in ("auth-provider", "username"):
        if name in user.content:
            raise KubeConfigInvalid(
                f"{user.path}: {name!r} is not supported; use a token, a client certificate or "
                "an exec plugin"
            )
    return FixedToken(None)


def _tls(cluster: _Entry, user: _Entry) -> ssl.SSLContext:
    authority = cluster.bytes_of("certificate-authority")
    certificate, key = user.bytes_of("client-certificate"), user.bytes_of("client-key")
    try:
        context = ssl.create_default_context(cadata=authority.decode() if authority else None)
        if cluster.content.get("insecure-skip-tls-verify"):
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if certificate and key:
            # The ssl module takes them from a file only; this one is ours alone.
            with tempfile.NamedTemporaryFile() as file:
                file.write(certificate.rstrip(b"\n") + b"\n" + key)
                file.flush()
                context.load_cert_chain(file.name)
    except (ssl.SSLError, ValueError) as error:
        raise KubeConfigInvalid(f"{cluster.path}: a certificate is not usable: {error}") from error
    return context


def _document(path: Path) -> Mapping[str, Any]:
    try:
        document = yaml.safe_load(_read(path))
    except yaml.YAMLError as error:
        raise KubeConfigInvalid(f"{path} is not YAML: {error}") from error
    if not isinstance(document, dict):
        raise KubeConfigInvalid(f"{path} is not a kubeconfig file")
    return document


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise KubeConfigInvalid(f"{path} cannot be read: {error.strerror}") from error
