"""
What git, registries and builders say when they fail, and what that means.

The texts come from programs that run the user's code, so anything may stand in them: they
are read line by line, each line and their number are bounded, and each pattern takes time
that is linear in what it reads.
"""

import re
from dataclasses import dataclass
from typing import Final

MAX_LINE: Final = 1000
MAX_LINES: Final = 50
"""Of the end of a text: what came long before the end did not end it."""

_MAX_TEXT: Final = MAX_LINE * MAX_LINES
_COLOUR = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
# From the first one to the end of the line: they hold each other.
_GO_VALUE = re.compile(r" ?&[a-z]\w*\.[A-Z]\w*\{.*")
_TIMESTAMP = re.compile(r"\d{4}/\d\d/\d\d \d\d:\d\d:\d\d ")


@dataclass(frozen=True, slots=True)
class Phrase:
    """Something that can be said in many ways.

    Attributes:
        words: What it says, for people.
        patterns: It is said by a line in which all of these are found.
    """

    words: str
    patterns: tuple[re.Pattern[str], ...]

    def find_in(self, text: str) -> str | None:
        """Return the last line that says it, without the time that may stand before it."""
        for line in reversed(_lines(text)):
            if all(each.search(line) for each in self.patterns):
                return line
        return None

    def find_at_end(self, text: str) -> str | None:
        """Return the very last line, if that says it."""
        last = last_words(text)
        return last if last and all(each.search(last) for each in self.patterns) else None


def last_words(text: str) -> str:
    """Return the last line that is not blank; empty if there is none."""
    return next(iter(reversed(_lines(text))), "")


def printable(text: str) -> str:
    """Return a text on one line, without colours and what else cannot be shown or stored."""
    plain = _COLOUR.sub("", text)
    if plain.isprintable():
        return plain.strip()
    return "".join(each if each.isprintable() else " " for each in plain).strip()


def without_dumps(line: str) -> str:
    """Return a line without the Go values that builders append to what they say."""
    return _GO_VALUE.sub("", line)


def _lines(text: str) -> list[str]:
    last = text[-_MAX_TEXT:].splitlines()[-MAX_LINES:]
    lines = (_TIMESTAMP.sub("", printable(each[:MAX_LINE]), count=1) for each in last)
    return [each for each in lines if each]


def _phrase(words: str, *patterns: str) -> Phrase:
    return Phrase(words, tuple(re.compile(each) for each in patterns))


ANYTHING: Final = _phrase("anything else", r"\S")

POD_NOT_FOUND: Final = _phrase("that its pod was not found", r"\bpod \S+ not found")

# -- git

GIT_WRONG_CREDENTIALS: Final = _phrase(
    "that the key or the password was refused",
    r"Permission denied \(|Host key verification failed|Authentication failed"
    r"|Invalid username or password|terminal prompts disabled",
)
GIT_NOT_THERE: Final = _phrase(
    "that there is no such repository or revision, or that it may not be read",
    r"not our ref|unable to read tree|reference is not a tree|did not match any file"
    r"|returned error: 40[134]"
    r"|repository '[^']*' not found|Remote branch \S+ not found"
    r"|does not appear to be a git repository|(?i:ERROR: repository not found)"
    r"|(?i:project you were looking for could not be found)",
)
GIT_CERTIFICATE: Final = _phrase(
    "that the server's certificate is not trusted",
    r"SSL certificate problem|certificate verification failed",
)
GIT_UNKNOWN_HOST: Final = _phrase(
    "that the host has no address", r"Could not resolve host", r"^(?!.*Temporary failure)"
)
# "OpenSSL" stands in the first lines of every git step's log; hence the \b.
GIT_TRANSPORT: Final = _phrase(
    "that the connection failed",
    r"Could not resolve|Temporary failure in name resolution|Failed to connect|timed out"
    r"|No route to host|Network is unreachable|Connection (?:reset|refused|closed)"
    r"|returned error: (?:5\d\d|429)|early EOF|RPC failed|hung up|\bTLS\b|\bSSL\b",
)

# -- registries

_TRANSPORT: Final = (
    r"(?i:toomanyrequests)|429 Too Many Requests|status code (?:429|5\d\d)"
    r"|\b50[0234] (?:Internal Server Error|Bad Gateway|Service Unavailable|Gateway Time-?out)"
    r"|dial tcp|server misbehaving|i/o timeout|TLS handshake timeout|context deadline exceeded"
    r"|Client\.Timeout exceeded|\bEOF\b|connection (?:refused|reset)|failed to run trivy"
)
REGISTRY_REFUSAL: Final = _phrase(
    "that the registry refuses the credentials, the name or the image, or is not trusted",
    r"UNAUTHORIZED|DENIED|NAME_INVALID|NAME_UNKNOWN|MANIFEST_INVALID|MANIFEST_UNKNOWN"
    r"|status code 40[13]|40[13] (?:Unauthorized|Forbidden)|x509: "
    r"|failed to find registry credentials|http protocol is not allowed"
    r"|failed to parse image name",
)
_UNKNOWN_HOST: Final = r"lookup \S+.*: no such host"
REGISTRY_UNKNOWN_HOST: Final = _phrase("that the registry's host has no address", _UNKNOWN_HOST)
REGISTRY_TRANSPORT: Final = _phrase(
    "that the registry, or the scanner's database, could not be reached", _TRANSPORT
)
# A builder may fail of other servers, too: the line must be about images as well.
_ABOUT_IMAGES: Final = r"(?i)push|pull|registry|manifest|blob|docker://|/v2/|resolve source"
BUILDER_REFUSED: Final = _phrase(
    "that a registry refuses the credentials, or has no such image",
    _ABOUT_IMAGES,
    r"(?i)\bunauthorized\b|\bdenied\b|\bforbidden\b|authentication required"
    r"|(?:manifest|name) unknown|invalid reference format|x509: ",
)
BUILDER_UNKNOWN_HOST: Final = _phrase(
    "that the host of a registry has no address", _ABOUT_IMAGES, _UNKNOWN_HOST
)
BUILDER_TRANSPORT: Final = _phrase(
    "that a registry could not be reached", _ABOUT_IMAGES, _TRANSPORT
)

# -- builders: buildah, BuildKit and kaniko in turn

RUN_FAILED: Final = _phrase(
    "that a RUN failed",
    r"building at STEP \"RUN\b|process \".*\" did not complete successfully"
    r"|failed to execute command: ",
)
DOCKERFILE_INVALID: Final = _phrase(
    "that the Dockerfile, or a file that it copies, is not as it must be",
    r"^(?i:error)",
    r"(?i:unknown instruction|parse error|unknown flag: )|Syntax error - can't find"
    r"|no FROM statement found|requires (?:either|at least|exactly) \w+ arguments?"
    r"|STEP \"(?:COPY|ADD)\b.*(?:no such file or directory|no items matching glob)"
    r"|failed to compute cache key: .*not found|failed to get fileinfo for",
)

# -- getting the pod to run

NO_SUCH_IMAGE: Final = _phrase(
    "that the image does not exist, or may not be pulled",
    r"(?i)InvalidImageName|manifest unknown|unauthorized|denied|: not found",
)
NAMESPACE_TERMINATING: Final = _phrase(
    "that the namespace is being deleted", r"namespace \S+ because it is being terminated"
)
QUOTA_WANTS_REQUESTS: Final = _phrase(
    "that a quota wants requests or limits", r"failed quota: .*must specify"
)
NO_ROOM_IN_QUOTA: Final = _phrase("that a quota is used up", r"exceeded quota: ")
# The kubelet's words for what a Pod has done to itself.
OVER_OWN_LIMIT: Final = _phrase(
    "that the pod was over its own limits",
    r"exceeds the (?:total )?limit|exceeded its local ephemeral storage limit",
)
# What `git ls-remote` means, in the words of Shipwright's git library.
REPOSITORY_NOT_THERE: Final = _phrase(
    "that there is no such repository, or none without credentials",
    r"(?i:repository not found|authentication required|authorization failed"
    r"|repository does not exist)",
)
POD_NOT_ALLOWED: Final = _phrase(
    "that such a pod is not allowed", r"LimitRange|forbidden|is invalid"
)
NO_ANSWER: Final = _phrase(
    "that something did not answer in time", r"context deadline exceeded|time[d ]*out"
)
