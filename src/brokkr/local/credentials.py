"""A user and a password, for the servers of local mode that are run with one."""

import json
from base64 import b64encode
from typing import NamedTuple


class Credentials(NamedTuple):
    """Who may use a server; a name and a password without colons or line ends."""

    user: str
    password: str

    @property
    def authorization(self) -> str:
        """The header that says so (RFC 7617)."""
        return "Basic " + b64encode(f"{self.user}:{self.password}".encode()).decode()

    def docker_config(self, host: str) -> str:
        """Render a registry's login as `kubectl create secret docker-registry` does."""
        login = {"username": self.user, "password": self.password}
        auth = self.authorization.removeprefix("Basic ")
        return json.dumps({"auths": {host: {**login, "auth": auth}}})
