"""
What credentials look like: the one list of shapes, with :mod:`brokkr.work.secret_names`.

:mod:`brokkr.work.redaction` takes them out of text, and :mod:`brokkr.work.template` refuses a
submission that carries one.  A new shape is a new row with an example: the tests read the list.
The shapes are those that issuers document and that public secret scanners look for.
"""

# Note [A shape is decided near its anchor]
#
# Text comes from others: it may be long, hostile and cut anywhere.  So each pattern
#
# * begins at a literal, its anchor, which one scan of the lower-cased text finds;
# * looks at most REACH characters ahead and CONTEXT characters back;
# * stays within one line;
# * repeats nothing that is itself a repetition of the same characters.
#
# This makes redaction linear, and a stream can be redacted piece by piece: whatever begins more
# than REACH characters before the end of the received text is decided.  A secret may be longer
# than REACH: the pattern matches its beginning, and `tail` names the characters that continue it.

import re
from dataclasses import dataclass
from functools import cached_property
from typing import Final

REACH: Final = 2048
CONTEXT: Final = 64


@dataclass(frozen=True)
class Shape:
    """
    One kind of credential.

    Attributes:
        anchors: Literals in lower case; the pattern begins at one of them.
        pattern: Matches the credential, or its beginning.  Group 1, if there is one, stays visible.
        examples: Texts of this shape.  The secret part is in ``«»``.
        tail: A class of the characters that continue the secret after the pattern's match.
        is_certain: Hardly anything else looks like this: a submission that carries it is refused.
        is_key_block: The match begins a key block that goes on over lines.
        gate: A short pattern without which this one cannot match, for what is tried often.
        needs: A literal that the pattern must meet within REACH: to look for that is cheaper.
    """

    name: str
    anchors: tuple[str, ...]
    pattern: str
    examples: tuple[str, ...]
    tail: str = ""
    is_certain: bool = True
    is_key_block: bool = False
    gate: str = ""
    needs: str = ""

    @cached_property
    def head(self) -> re.Pattern[str]:
        """The compiled pattern."""
        return re.compile(self.pattern)

    @cached_property
    def rest(self) -> re.Pattern[str] | None:
        """What continues the secret, if anything can."""
        return re.compile(f"(?:{self.tail})*+") if self.tail else None


_WORD: Final = "[A-Za-z0-9]"
_NAME: Final = "[A-Za-z0-9_-]"
BEARER: Final = "[A-Za-z0-9._~+/=-]"
BASE64: Final = "[A-Za-z0-9+/=]"
_SECRETS: Final = (
    "q7Zk2Xw9Rt4Vb6Nm1Hs8Jd3Lf5Gp0CyQ7zK2xW9rT4vB6nM1",
    "0a1b2c3d4e5f60718293a4b5c6d7e8f9",
    "Q7ZK2XW9RT4VB6NM1HS8JD3LF5GP0CYQ7ZK2XW9RT4VB6NM1",
)
"""For examples."""


def _token(name: str, *prefixes: str, of: str = _NAME, least: int = 16) -> Shape:
    """Return the shape of a token that its issuer gives a prefix, which stays visible."""
    either = "|".join(map(re.escape, prefixes))
    secret = next(each for each in _SECRETS if re.fullmatch(f"{of}+", each))
    return Shape(
        name,
        tuple(each.lower() for each in prefixes),
        f"({either}){of}{{{least}}}",
        tuple(f"{each}«{secret}»" for each in prefixes),
        tail=of,
    )


_TOKENS: Final = (
    _token("GitHub token", "ghp_", "gho_", "ghu_", "ghr_", of="[A-Za-z0-9_]"),
    # Newer installation tokens hold a JSON web token.
    _token("GitHub installation token", "ghs_", of="[A-Za-z0-9._-]"),
    _token("GitHub fine-grained token", "github_pat_", of="[A-Za-z0-9_]"),
    _token(
        "GitLab token",
        *("glpat-", "gldt-", "glrt-", "glrtr-", "glptt-", "glcbt-", "glft-", "glsoat-"),
        *("glimt-", "glagent-", "gloas-", "glffct-", "glwt-", "gr1348941"),
        of="[A-Za-z0-9._-]",
    ),
    _token("Bitbucket or Atlassian token", "ATBB", "ATATT3xFfGF0", "ATCTT3xFfGN0", least=20),
    _token("AWS session token", "IQoJb3JpZ2lu", "FwoGZXIvYXdz", of=BASE64, least=32),
    _token("Slack token", *(f"xox{each}-" for each in "abcdeoprs"), "xapp-", least=10),
    _token("npm token", "npm_", of=_WORD, least=30),
    _token("PyPI token", "pypi-AgE", least=32),
    _token("Docker Hub token", "dckr_pat_", "dckr_oat_", least=20),
    _token("Google API key", "AIza", least=35),
    _token("Google access token", "ya29.", "1//0", of=_NAME, least=30),
    _token("Google client secret", "GOCSPX-", least=24),
    _token(
        "Stripe key", "sk_live_", "rk_live_", "sk_test_", "rk_test_", "whsec_", of=_WORD, least=16
    ),
    _token("Hashicorp Vault token", "hvs.", "hvb.", "hvr.", least=24),
    _token("Hugging Face token", "hf_", of=_WORD, least=30),
    _token("OpenAI or Anthropic key", "sk-proj-", "sk-svcacct-", "sk-ant-", least=24),
    _token("DigitalOcean token", "dop_v1_", "doo_v1_", "dor_v1_", of="[0-9a-f]", least=32),
    _token("Grafana token", "glsa_", "glc_", of="[A-Za-z0-9+/=_]", least=32),
    _token("Sentry token", "sntrys_", "sntryu_", of="[A-Za-z0-9+/=_-]", least=32),
    _token("RubyGems key", "rubygems_", of="[0-9a-f]", least=32),
    _token("Shopify token", "shpat_", "shpca_", "shppa_", "shpss_", of="[0-9a-fA-F]", least=32),
    _token("Pulumi token", "pul-", of="[0-9a-f]", least=32),
    _token("Tailscale key", "tskey-", least=20),
    _token("Artifactory key", "AKCp", "cmVmdGtuO", of=_WORD, least=40),
    _token("age key", "AGE-SECRET-KEY-1", of="[A-Z0-9]", least=40),
    _token("Doppler token", "dp.pt.", "dp.st.", "dp.sa.", of="[A-Za-z0-9._]", least=30),
    _token("Linear key", "lin_api_", of=_WORD, least=30),
    _token("Databricks token", "dapi", of="[0-9a-f]", least=32),
)

_FORMATS: Final = (
    Shape(
        "Brokkr key",
        ("brokkr_",),
        r"(brokkr_[a-z]{3})[a-z2-7]{10}_[A-Za-z0-9_-]",
        ("brokkr_gen«abcdefgh27_Zk2Xw9Rt4Vb6Nm1Hs8Jd3»",),
        tail=_NAME,
    ),
    Shape(
        "AWS access key id",
        ("akia", "asia", "abia", "acca"),
        # Behind the "\n" of a JSON text it stands at the beginning of a line, too.
        r"(?:(?<![A-Za-z0-9])|(?<=\\[bfnrt]))(AKIA|ASIA|ABIA|ACCA)[A-Z2-7]{16}(?![A-Za-z0-9])",
        ("AKIA«IOSFODNN7EXAMPLE»", "ASIA«Y34FZKBOKMUTVV7A»"),
    ),
    # The header of a JSON web token, which may be long, begins with one of a few names.
    Shape(
        "JSON web token",
        ("eyj",),
        rf"eyJ(?:hbGciOi|0eXAiOi|raWQiOi|4NWMiOl|4NXQiOi|lbmMiOi|jdHkiOi|qa3UiOi){_NAME}{{4}}"
        rf"|eyJ{_NAME}{{8,512}}+\.",
        (
            "«eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhIn0.q7Zk2Xw9Rt4Vb6Nm1Hs8»",
            "«eyJpc3MiOiJhIiwiYSI6MX0.Zk2Xw9Rt4Vb6Nm1Hs8Jd.»",
        ),
        tail="[A-Za-z0-9._-]",
    ),
    # {"auths": in base64, as a Secret of type kubernetes.io/dockerconfigjson holds it.
    Shape(
        "registry credentials in base64",
        ("eyjhdxroc", "eyaiyxv0ahm", "ewogicjhdxroc", "ewogicagicjhdxroc", "ewoijhdxroc"),
        rf"e(?:yJhdXRoc|yAiYXV0aHM|wogICJhdXRoc|wogICAgImF1dGhz|wogICAgICJhdXRoc){BASE64}{{8}}",
        ("«eyJhdXRocyI6eyJyIjp7ImF1dGgiOiJkWE5sY2pwd2R3PT0ifX19»",),
        tail=BASE64,
    ),
    Shape(
        "Slack webhook",
        ("hooks.slack.com/",),
        r"(hooks\.slack\.com/(?:services|workflows|triggers)/)[A-Za-z0-9/]{16}",
        ("https://hooks.slack.com/services/«T00000000/B00000000/q7Zk2Xw9Rt4Vb6Nm1Hs8»",),
        tail="[A-Za-z0-9/]",
    ),
    Shape(
        "Discord webhook",
        ("discord.com/api/webhooks/", "discordapp.com/api/webhooks/"),
        r"(discord(?:app)?\.com/api/webhooks/[0-9]{1,24}/)[A-Za-z0-9_-]{16}",
        ("https://discord.com/api/webhooks/123456789012345678/«q7Zk2Xw9Rt4Vb6Nm1Hs8»",),
        tail=_NAME,
    ),
    Shape(
        "SendGrid key",
        ("sg.",),
        r"(SG\.)[A-Za-z0-9_-]{16,32}+\.[A-Za-z0-9_-]{16}",
        ("SG.«q7Zk2Xw9Rt4Vb6Nm1Hs8Jd.3Lf5Gp0CyQ7zK2xW9rT4vB6nM1hS8jD»",),
        tail=_NAME,
    ),
    Shape(
        "Azure key",
        ("accountkey=", "sharedaccesskey="),
        rf"((?i:AccountKey|SharedAccessKey)=){BASE64}{{16}}",
        (
            "AccountName=a;AccountKey=«q7Zk2Xw9Rt4Vb6Nm1Hs8Jd3Lf5Gp0CyQ7zK2xW9rT4vB6nM1hS8jD3==»",
            "SharedAccessKey=«q7Zk2Xw9Rt4Vb6Nm1Hs8Jd3Lf5Gp0Cy=»",
        ),
        tail=BASE64,
    ),
    Shape(
        "signature in a URL",
        ("sig=", "signature="),
        r"((?<=[?&])(?i:sig)=|(?<=[?&_-])(?i:signature)=)[A-Za-z0-9%+/=_-]{16}",
        (
            "https://a.blob.core.windows.net/c?sv=2024-11-04&sig=«q7Zk2Xw9Rt4Vb6Nm1%2FHs8%3D»",
            "https://s3.example/x?X-Amz-Signature=«0123456789abcdef0123456789abcdef»",
        ),
        tail="[A-Za-z0-9%+/=_-]",
    ),
)
"""Tokens with more of a form than a prefix."""


def _key(kind: str, line_break: str, lines: str, block: str = "") -> str:
    """Return an example of a key block."""
    label = f"{kind}PRIVATE KEY{block}-----"
    return f"«-----BEGIN{label}{line_break}{lines}{line_break}-----END{label}»"


_KEY_MATERIAL: Final = (
    Shape(
        "private key",
        ("-----begin ",),
        r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----",
        (
            _key(" ", "\n", "MIIEq7Zk2Xw9Rt4Vb6Nm1Hs8\nJd3L"),
            _key(
                " RSA ",
                "\r\n",
                "Proc-Type: 4,ENCRYPTED\r\nDEK-Info: AES,00AA\r\n\r\nMIIEq7Zk2\r\nd3=",
            ),
            _key(" EC ", r"\n", r"MIIEq7Zk2Xw9Rt4V\nJd3L=="),
            _key(" OPENSSH ", " ", "b3BlbnNzaC1rZXktdjEA q7Zk2Xw9Rt4Vb6Nm1Hs8"),
            _key(" PGP ", "\n", "\nlQOYq7Zk2Xw9Rt4V\n=aB3d", " BLOCK"),
        ),
        is_key_block=True,
    ),
    # The same in base64, as kubeconfigs have it; certificates and public keys are no secret.
    Shape(
        "private key in base64",
        ("ls0tls1crudjti",),
        r"LS0tLS1CRUdJTi(?!BDRVJUSUZJQ0FUR|BQVUJMSUMg)[A-Za-z0-9+/=_-]{4}",
        ("client-key-data: «LS0tLS1CRUdJTiBSU0EgUFJJVkFURSBLRVktLS0tLQpNSUlFcTda»",),
        tail="[A-Za-z0-9+/=_-]",
    ),
)

# A URL stands in JSON, Markdown and shell text, so quotes and brackets end it.
_ENDS_URL: Final = r"""\s"'<>`\\"""
_AT: Final = r"(?=@(?!sha\d))"
"""The end of the user information; but app:v1@sha256:… is an image."""
_URL: Final = Shape(
    "credentials in a URL",
    ("//", r"\/\/"),
    r"((?:\\/\\/|//))(?:"
    # user:password@
    rf"(?=[^@:/{_ENDS_URL}]{{0,256}}+:)[^/{_ENDS_URL}]{{1,1000}}{_AT}"
    # The same with a slash in the password, unless what follows the colon is a port.
    rf"|[^@:/{_ENDS_URL}]{{1,64}}+:(?!\d{{1,5}}[/?#])[^@{_ENDS_URL}]{{1,256}}+"
    rf"(?:@[^@/{_ENDS_URL}]{{1,256}}+){{0,3}}{_AT}"
    # A token alone.  In other schemes it is the name of an account: ssh://git@host.
    rf"|(?:(?<=(?i:http:)//)|(?<=(?i:https:)//))[^/{_ENDS_URL}]{{1,1000}}{_AT})",
    (
        "https://«ci:q7Zk2Xw9»@git.example/x.git",
        "https://«q7Zk2Xw9»@git.example/x.git",
        "//«ci:q7Zk2Xw9»@git.example/x.git",
        "https://«ci:q7/Zk2Xw9»@git.example/x.git",
        "https://«ci:q7@Zk2Xw9»@git.example/x.git",
        "postgresql://«brokkr:q7Zk2Xw9»@db:5432/brokkr",
        "redis://«:q7Zk2Xw9»@cache:6379/0",
        r"https:\/\/«ci:q7Zk2Xw9»@git.example\/x.git",
    ),
    needs="@",
)

SHAPES_BY_FORM: Final = (*_KEY_MATERIAL, *_FORMATS, *_TOKENS, _URL)
"""What is a credential wherever it stands."""
