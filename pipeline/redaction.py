"""Removing passwords and tokens from what is shown or stored."""

import os
import re
from collections.abc import Iterator
from urllib.parse import unquote

HIDDEN = "***"
_SECRET_NAMES = r"token|secret|signature|passw(?:or)?d|pwd|credential|api[-_]?key|access[-_]?key"
# User and password before the host of a URL, and secrets among its parameters.
_LOGIN = re.compile(r"(?<=://)[^\s/?#]*@")
_PARAMETER = re.compile(
    rf"""([?&;](?:[\w.-]*(?:{_SECRET_NAMES})[\w.-]*|(?:[\w.-]*[-_.])?(?:sig|key|auth))=)[^\s&;#'"<>]+""",
    re.IGNORECASE,
)
# A password may have characters that end a URL for most parsers.
_PASSWORD = re.compile(r"://[^\s:/@]*:([^\s@]+)@")
# Environment variables that are secrets, judged by name; shorter values may be ordinary words.
_SECRET = re.compile(
    r"(?:TOKEN|SECRET|SECRET_KEY|PASSWORD|PASSWD|API_?KEY|ACCESS_KEY(?:_ID)?|AUTH_STRING|WEBHOOK_URL)$"
)
_SHORTEST = 8


def redact(text: str) -> str:
    """Return a text without logins in URLs and without secrets of the environment."""
    for secret in sorted(_secrets(), key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    return _PARAMETER.sub(rf"\1{HIDDEN}", _LOGIN.sub(f"{HIDDEN}@", text))


def holds_secret(address: str) -> bool:
    """Return whether a URL has a login or a token in it."""
    return bool(_LOGIN.search(address) or _PARAMETER.search(address))


def without_login(address: str) -> str:
    """Return a URL without its login; it still leads to its page."""
    return _LOGIN.sub("", address)


def _secrets() -> Iterator[str]:
    for name, value in os.environ.items():
        found = [match[1] for match in _PASSWORD.finditer(value)]
        if _SECRET.search(name.upper()):
            # `name:password`, as Prefect takes it.
            found += [value, value.rpartition(":")[2]]
        for secret in found:
            yield from (one for one in {secret, unquote(secret)} if len(one) >= _SHORTEST)
