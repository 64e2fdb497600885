"""Recognises credentials: keys, tokens, passwords, and URLs that contain one.

Invariant: every pattern takes linear time and begins with a literal that is rare in ordinary text.
"""

import re
from collections.abc import Iterable
from urllib.parse import parse_qsl

from sweeper.redact.finding import DataKind, Recogniser, TextSpan, whole

# Formats of vendors' keys. Prefixes are case-sensitive and are not matched inside a word.
VENDORS = (
    r"sk-[\w-]{16,}+",  # OpenAI, Anthropic, OpenRouter, DeepSeek, …
    r"gh[pousr]_[A-Za-z0-9]{20,}+",
    r"github_pat_\w{20,}+",
    r"gl(?:pat|ptt|dt|rt|cbt|ft|soat|agent|oas|imt)-[\w.-]{16,}+",
    r"(?:AKIA|ASIA|ABIA|ACCA|A3T[A-Z0-9])[A-Z0-9]{16}(?![A-Za-z0-9])",
    r"xox[abeoprs](?:\.xox[bp])?-[\w-]{10,}+",
    r"xapp-[\w-]{10,}+",
    r"AIza[\w-]{35}(?![\w-])",
    r"ya29\.[\w-]{20,}+",
    r"GOCSPX-[\w-]{20,}+",
    r"[sr]k_(?:live|test)_[A-Za-z0-9]{10,}+",
    r"whsec_[A-Za-z0-9+/=]{20,}+",
    r"hf_[A-Za-z0-9]{30,}+",
    r"npm_[A-Za-z0-9]{30,}+",
    r"pypi-[\w-]{16,}+",
    r"SG\.[\w-]{16,}+\.[\w-]{16,}+",
    r"SK[0-9a-f]{32}(?!\w)",  # Twilio
    r"\d{8,10}:AA[\w-]{32,34}(?![\w-])",  # Telegram
    r"[MNO][\w-]{23,25}\.[\w-]{6}\.[\w-]{27,}+",  # Discord
    r"do[opr]_v1_[0-9a-f]{64}(?!\w)",
    r"shp(?:at|ca|pa|ss)_[0-9a-fA-F]{32}(?!\w)",
    r"key-[0-9a-f]{32}(?!\w)",  # Mailgun
    r"[0-9a-f]{32}-us\d{1,2}(?!\w)",  # Mailchimp
    r"dapi[0-9a-f]{32}(?!\w)",
    r"sq0[a-z]{3}-[\w-]{22,}+",
    r"(?:gsk|r8|ntn|sntrys|glsa|lin_api|xai|pplx|sbp|tskey|dckr_pat)[_-][\w-]{20,}+",
    r"HRKU-[\w-]{30,}+",
    r"hv[sb]\.[\w-]{20,}+",
    r"AGE-SECRET-KEY-1[0-9A-Z]{58}(?!\w)",
)
KEYS = (
    r"(?:api|access|auth|secret|private|encryption|signing|account|app|client|service)[_ -]?(?:access[_ -]?)?(?:key|secret|id)"
    r"|secret"
)
TOKENS = r"token|session[_-]?id|(?<!\w)sid"
PASSWORDS = r"pass(?:word|wd|phrase|wort)|pwd|(?<!\w)p(?:w|ass)|kennwort|lösenord|mot de passe|contraseña|senha|wachtwoord|hasło"
QUOTE = r"(?:[\"'`]|\\\")?"
ASSIGNED = rf"{QUOTE}\s{{0,3}}(?:[:=]|=>|:=|->|is|ist|är|est|è)\s{{0,3}}{QUOTE}"
VALUE = r"(?P<secret>[A-Za-z0-9_\-./+=~!@#$%^*]{16,}+)"
FOLLOWED = rf"(?:{ASSIGNED}|\s)"
SECRET_PARAMETERS = re.compile(
    r"(?:access|auth|id|private|refresh|security|session|x-amz-security)[_-]?token|token|jwt|bearer|(?:client[_-]?)?secret"
    r"|(?:api|app|access|subscription|secret|aws_secret_access)[_-]?key|key|pass|passwd|password|pwd|auth|authorization"
    r"|session(?:_?id)?|sid|sas|sig|sign|signature|code|SAMLResponse|x-(?:amz|goog)-(?:credential|signature)",
    re.IGNORECASE,
)
"""URL parameters that hold credentials."""
LONG = 16
"""Fewest characters of a secret in an ambiguous parameter; shorter values are sort keys, page numbers and the like."""
AMBIGUOUS = frozenset({"key", "session", "sid", "sign", "auth", "pass", "code"})
SCHEME = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+.-")
TRAILING = ".,;:!?)]}*_"


def _has_digit(match: re.Match[str]) -> Iterable[TextSpan]:
    """Return the key if it is long or has a digit; otherwise it may be words joined by hyphens."""
    return (TextSpan(*match.span()),) if any(sign.isdigit() for sign in match[0]) or len(match[0]) > 40 else ()


def _is_random(match: re.Match[str]) -> Iterable[TextSpan]:
    """Return the value if letters and digits are mixed as in a random key, not as in a path or a name."""
    value = match["secret"]
    digits = sum(map(str.isdigit, value))
    mixed = any(map(str.islower, value)) and any(map(str.isupper, value))
    is_random = digits >= (1 if mixed else 2) and any(map(str.isalpha, value)) and value.count("/") < 4
    return (TextSpan(*match.span("secret")),) if is_random and value[0] not in "$%*" else ()


def _is_password(match: re.Match[str]) -> Iterable[TextSpan]:
    """Return the value unless it is a plain word, as in talk about passwords, or refers to a variable."""
    value = match["secret"]
    is_reference = value[0] in "$%*" or "environ" in value or "getenv" in value
    mixed = any(map(str.isalpha, value)) and not value.isalpha()
    return () if is_reference or not mixed else (TextSpan(*match.span("secret")),)


def _url(match: re.Match[str]) -> Iterable[TextSpan]:
    """Return the whole URL if it contains a password or a token."""
    start = match.start()
    while start > 0 and match.start() - start < 24 and match.string[start - 1] in SCHEME:
        start -= 1
    rest = match["rest"].rstrip(TRAILING)
    if start == match.start() or not (_has_password(rest) or _has_token(rest)):
        return ()
    return (TextSpan(start, match.start("rest") + len(rest)),)


def _has_password(rest: str) -> bool:
    """Return True for `user:password@`, even if the password contains an unencoded slash."""
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    user, at, _ = authority.rpartition("@")
    if at:
        _, colon, password = user.partition(":")
        return bool(password) if colon else len(user) >= LONG and any(map(str.isdigit, user))
    host, colon, port = authority.partition(":")
    return bool(host and colon and port) and not port.isdigit() and "@" in rest


def _has_token(rest: str) -> bool:
    query = re.split(r"[?#]", rest, maxsplit=1)
    if len(query) < 2:
        return False
    pairs = parse_qsl(query[1].replace("?", "&").replace("#", "&").replace("&amp;", "&"))
    return any(
        len(value) >= (LONG if name.lower() in AMBIGUOUS else 6)
        for name, value in pairs
        if SECRET_PARAMETERS.fullmatch(name)
    )


RULES = (
    Recogniser(
        DataKind.PRIVATE_KEY,
        re.compile(
            r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----"
            # to the end marker or, if that is missing, to the last line of base64
            r"(?:(?:[^-]|-(?!----)){0,40000}+-----END [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----"
            r"|(?:(?:\s|\\[nr]|[\"'+,>]){0,12}+[A-Za-z0-9+/=]{16,}+){0,1000}+)"
        ),
        needles=("private key",),
    ),
    Recogniser(
        DataKind.URL_CREDENTIALS,
        re.compile(r"://(?P<rest>[^\s<>\"'`|\\]{3,4096}+)"),
        _url,
        needles=("://",),
    ),
    Recogniser(
        DataKind.API_KEY,
        re.compile(
            r"(?<![A-Za-z0-9])(?=[\w.:-]{15})(?:" + "|".join(VENDORS) + ")"
        ),  # the lookahead rules out most words quickly
        _has_digit,
    ),
    Recogniser(
        DataKind.API_KEY,
        re.compile(r"hooks\.slack\.com/(?:services|workflows)/[\w/]{20,}+"),
        needles=("hooks.slack.com",),
    ),
    Recogniser(
        DataKind.API_KEY,
        re.compile(r"AccountKey=(?P<secret>[A-Za-z0-9+/]{80,}+={0,2})"),
        needles=("accountkey=",),
    ),
    Recogniser(
        DataKind.API_KEY,
        re.compile(rf"(?i)(?:{KEYS}){FOLLOWED}{VALUE}"),
        _is_random,
        needles=("key", "secret", "id"),
    ),
    Recogniser(
        DataKind.TOKEN,
        re.compile(rf"(?i)(?:{TOKENS}){FOLLOWED}{VALUE}"),
        _is_random,
        needles=("token", "session", "sid"),
    ),
    Recogniser(
        DataKind.TOKEN,
        re.compile(r"(?<![\w-])eyJ[\w-]{8,}+\.[\w-]{8,}+(?:\.[\w-]*+){0,4}"),
        needles=("eyj",),
    ),
    Recogniser(
        DataKind.TOKEN,
        re.compile(r"(?i)(?<!\w)bearer(?:[\s:]|%20){1,3}(?P<secret>[\w\-.~+/]{12,}+={0,2})"),
        lambda match: whole(match) if not match["secret"].isalpha() else (),
        needles=("bearer",),
    ),
    Recogniser(
        DataKind.TOKEN,
        re.compile(
            r"(?i)(?<!\w)authorization[\"']?\s{0,2}[:=]\s{0,2}[\"']?(?:basic|token|digest)\s{1,3}"
            r"(?P<secret>[\w\-.~+/]{12,}+={0,2})"
        ),
        needles=("authorization",),
    ),
    Recogniser(
        DataKind.PASSWORD,
        re.compile(rf"(?i)(?:{PASSWORDS}){ASSIGNED}(?P<secret>[^\s\"'`<>{{}}\[\](),;]{{6,128}}+)"),
        _is_password,
        needles=("pass", "pwd", "pw", "kennwort", "lösenord", "contraseña", "senha", "wachtwoord", "hasło"),
    ),
)
