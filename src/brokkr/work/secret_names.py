"""
What is secret by the name, the header or the flag before it: the second half of the list of shapes.

A name alone is a weak sign.  So "token: expired" stays: after a colon the value has to look random.
"""

import re
from typing import Final

from brokkr.work.credentials import BASE64, BEARER, CONTEXT, Shape

_PLAIN: Final = r"""[^\s"'\\&,;]"""
_REFERENCE: Final = r"\$\{|\$\(|\$[A-Z_][A-Z0-9_]{0,64}+(?![A-Za-z0-9_])|\{\{|%\{|<[a-z]|\*\*\*"
_UNSET: Final = r"(?i:true|false|null|none|nil|yes|no|undefined|unset)(?![A-Za-z0-9_-])"
_LINE_OF_ACCOUNT: Final = r"[a-z_][a-z0-9_-]{0,31}:[x*]:[0-9]"
_GIVEN: Final = rf"(?!{_REFERENCE}|{_UNSET}|{_LINE_OF_ACCOUNT})"
_NAMED_SO: Final = (
    r"(?i:passw(?:or)?d|passphrase|(?<=[_-])pass|(?<=;)pwd|token|auth|credentials?"
    # Shipwright's pushSecret is the name of one.
    r"|(?<!push)(?<!pull)(?<!clone)secret(?:[_-]?(?:access[_-]?)?key)?"
    r"|(?:(?<=api)|(?<=access)|(?<=private)|(?<=(?:api|ess|ate|unt|ing|ion|ter)[_-]))key)"
)
"""The end of a name; what begins it does not matter."""
_GATE: Final = rf"{_NAMED_SO}[\"'\\ \t:=]"
_NAMES: Final = ("pass", "pwd", "token", "auth", "credential", "secret", "key")

_RANDOM: Final = (
    # Neither a reference nor a digest, a URL or a date;
    rf"(?!{_REFERENCE}|sha\d{{3}}:|https?:|\d{{4}}-\d\d-\d\d)"
    # a UUID;
    r"(?:(?i:[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})(?![A-Za-z0-9-])"
    # or letters and digits, and not a name, version, host or path in lower case.
    r"|(?![a-z0-9]{1,64}+(?:[-._/:@][a-z0-9]{1,64}+){1,12}+(?![A-Za-z0-9_~+=$!%-]))"
    r"(?=[A-Za-z._~+/=$!%-]{0,64}+[0-9])(?=[0-9._~+/=$!%-]{0,64}+[A-Za-z])"
    r"[A-Za-z0-9._~+/=$!%-]{8})"
)
_NO_WORD: Final = (
    # "password: wrong" is a message; a digit or a sign within makes it a password.  passwd:amd64
    # is a package.
    rf"{_GIVEN}(?!(?:amd64|arm64|armhf|i386|ppc64el|riscv64|s390x)(?![A-Za-z0-9]))(?=[A-Za-z]{{0,64}}+(?:[0-9]|[^A-Za-z0-9\s\"'()\[\]{{}}<>,;:.!?]\S))"
    r"""[^\s"'\\,;(){}<>\[\]]{4}"""
)


def _named(quote: str, inside: str, *, opening: str, closing: str) -> tuple[Shape, ...]:
    """
    Return the shapes of what is secret by the name before it.

    Args:
        quote: A pattern of what opens the value.
        inside: A class of the characters in the value.
        opening: An example of the quote.
        closing: An example of what ends the value.
    """
    # name=VALUE and "name": "VALUE" are data; name: VALUE may be a sentence.
    data = r"(?:=|\\{0,3}[\"'][ \t]{0,2}(?:=>|[:=])[ \t]{0,2})"
    sentence = r"[\"']?[ \t]{0,4}[:=][ \t]{0,8}"
    first = r"[^\s\"'\\&,;{(\[<]" if not quote else rf"(?:{inside})"
    shown = f"{opening}«q7Zk2Xw9Rt4V»{closing}"
    names = "PGPASSWORD", "AWS_SECRET_ACCESS_KEY", "npm_token", "api-key"
    return (
        Shape(
            f"value of a secret name, {opening or 'un'}quoted{closing}",
            _NAMES,
            rf"({_NAMED_SO}{data}{quote}){_GIVEN}{first}",
            (
                *(f"{name}={shown}" for name in names),
                f"{opening or chr(34)}token{opening or chr(34)}: {shown}",
            ),
            tail=inside,
            is_certain=False,
            gate=_GATE,
        ),
        Shape(
            f"password after a colon, {opening or 'un'}quoted{closing}",
            ("pass",),
            rf"((?i:passw(?:or)?d|passphrase){sentence}{quote}){_NO_WORD}",
            (f"password: {shown}", f"Passphrase = {shown}"),
            tail=inside,
            is_certain=False,
            gate=_GATE,
        ),
        Shape(
            f"random text after a secret name, {opening or 'un'}quoted{closing}",
            _NAMES,
            rf"({_NAMED_SO}{sentence}{quote}){_RANDOM}",
            (f"token: {shown}", f"aws_secret_access_key = {shown}", f"X-Api-Key: {shown}"),
            tail=inside,
            is_certain=False,
            gate=_GATE,
        ),
    )


NAMED_SHAPES: Final = (
    Shape(
        "registry credentials",
        ("auth",),
        r"((?i:auth)(?<=[\"']....)\\{0,3}[\"'][ \t]{0,2}:[ \t]{0,2}\\{0,3}[\"'])"
        rf"(?=[A-Za-z+/]{{0,80}}?(?:[0-9=]|[a-z][A-Z])){BASE64}{{12}}",
        ('{"auths":{"r.example":{"auth":"«Y2k6cTdaazJYdzk=»"}}}',),
        gate=r"(?i:auth)[\"'\\]",
        tail=BASE64,
    ),
    Shape(
        "credential in a query",
        (
            *("access_token=", "private_token=", "auth_token=", "oauth_token=", "job_token="),
            *("refresh_token=", "id_token=", "x-amz-security-token=", "client_secret="),
            *("api_key=", "api-key=", "apikey=", "token=", "password=", "passwd=", "secret="),
        ),
        rf"((?<=[?&])[A-Za-z_-]{{5,24}}+=){_GIVEN}[^\s\"'&#<>\\]",
        (
            "https://git.example/x.git?access_token=«q7Zk2Xw9»",
            "https://git.example/x.git?a=1&private_token=«q7Zk2Xw9»",
            "https://git.example/x?token=«q7Zk2Xw9»&b=2",
        ),
        gate="(?<=[?&])",
        tail=r"[^\s\"'&#<>\\]",
    ),
    Shape(
        "Authorization header",
        ("authorization",),
        r"((?i:authorization)\\{0,3}[\"']?[ \t]{0,4}[:=][ \t]{0,4}\\{0,3}[\"']?"
        rf"(?i:bearer|basic|token|digest|negotiate)[ \t]{{1,4}}){BEARER}{{8}}",
        (
            "Authorization: Bearer «q7Zk2Xw9Rt4V»",
            "proxy-authorization: basic «Y2k6cTdaazJYdzk=»",
            '{"Authorization": "token «q7Zk2Xw9Rt4V»"}',
        ),
        gate="(?i:authorization)",
        tail=BEARER,
    ),
    Shape(
        "Authorization header without a scheme",
        ("authorization",),
        r"((?i:authorization)\\{0,3}[\"']?[ \t]{0,4}[:=][ \t]{0,4}\\{0,3}[\"']?)"
        rf"(?=[A-Za-z]{{0,64}}+[0-9+/=_~]){BEARER}{{8}}",
        ("Authorization: «q7Zk2Xw9Rt4V»",),
        gate="(?i:authorization)",
        tail=BEARER,
        is_certain=False,
    ),
    Shape(
        "bearer token or basic credentials",
        ("bearer", "basic"),
        rf"((?i:bearer|basic)[ \t]{{1,4}})(?=[A-Za-z.-]{{0,80}}?(?:[0-9+=_~]|[a-z][A-Z]))"
        rf"{BEARER}{{8}}",
        ("bearer «q7Zk2Xw9Rt4V»", "Basic «Y2k6cTdaazJYdzk=»"),
        tail=BEARER,
        is_certain=False,
    ),
    Shape(
        "cookie",
        ("cookie",),
        r"((?i:cookie)\\{0,3}[\"']?:[ \t]{0,4}\\{0,3}[\"']?)(?=[A-Za-z0-9_.-]{1,64}+=)[^\s\"'\\]",
        ("Cookie: «session=q7Zk2Xw9; b=2»", "set-cookie: «session=q7Zk2Xw9; Path=/»"),
        tail=r"[^\s\"'\\]|(?<=;) ",
        is_certain=False,
    ),
    *_named(r'[bru]?"', r"""[^"\r\n]|(?<=\\)\"""", opening='"', closing='"'),
    *_named(r"[bru]?'", r"""[^'\r\n]|(?<=\\)'""", opening="'", closing="'"),
    *_named(r"\\{1,3}[\"']", r"""[^"'\\\r\n]""", opening=r"\"", closing=r"\""),
    *_named("", _PLAIN, opening="", closing=""),
    # docker login --password VALUE; not --secret id=npmrc, and not "Using --password via the CLI".
    Shape(
        "value of a flag",
        _NAMES,
        # After "registry-token" comes a word of prose, if it is all letters.
        r"((?:(?<=--)|(?<=[a-z0-9]-)(?=[a-z-]{4,20}[ \t]{1,4}[\"']?[a-z]{0,64}+[^a-z\s\"',.;:]))"
        rf"(?!credential){_NAMED_SO}[ \t]{{1,4}}[\"']?){_GIVEN}"
        r"(?!(?:id|type|src)=|-|(?i:a|an|the|is|are|was|and|or|to|in|for|from|with|via|must|may"
        r"|can|cannot|has|flag|option|value|given|not|on|as|at|by|of|instead|requires|sets|takes"
        rf"|does|if|when|used|should|will|needs|expects)(?![A-Za-z0-9_-])){_PLAIN}{{2}}",
        ("docker login --password «q7Zk2Xw9» r.example", "--registry-token «q7Zk2Xw9»"),
        tail=_PLAIN,
        gate=_GATE,
        is_certain=False,
    ),
    Shape(
        "user and password for curl",
        ("curl ",),
        rf"(curl [^\r\n|;&]{{0,120}}?(?:-u|--user)[ =]?[\"']?[^\s:\"'$]{{1,64}}+:){_GIVEN}{_PLAIN}",
        ("curl -fsSL -u ci:«q7Zk2Xw9» https://x.example",),
        tail=_PLAIN,
        is_certain=False,
    ),
    Shape(
        "password for a login",
        ("login ",),
        rf"(login [^\r\n|;&]{{0,120}}? -p[ =]?[\"']?){_GIVEN}{_PLAIN}",
        ("docker login r.example -u ci -p «q7Zk2Xw9»",),
        tail=_PLAIN,
        is_certain=False,
    ),
)

_RANDOM_VALUE: Final = re.compile(_RANDOM)
_ENDS_SO: Final = re.compile(rf"{_NAMED_SO}\Z")
_ENDINGS: Final = ("word", "wd", "phrase", "pass", "token", "auth", "ntial", "ntials", "ret", "key")
"""All of those names end so, which is faster to see."""


def is_secret(name: str, value: str) -> bool:
    """Say whether a value looks random and its name says that it is secret."""
    return (
        name.lower().endswith(_ENDINGS)
        and _RANDOM_VALUE.match(value) is not None
        and _ENDS_SO.search(name[-CONTEXT:]) is not None
    )
