"""Passwords and tokens, kept out of what is shown and written down."""

import os
import re
from collections.abc import Iterator
from urllib.parse import unquote

HIDDEN = "***"
_LETS_IN = r"token|secret|signature|passw(?:or)?d|pwd|credential|api[-_]?key|access[-_]?key"
# What stands before the host of an address, and what its parameters say to be let in.
_LOGIN = re.compile(r"(?<=://)[^\s/?#]*@")
_PARAMETER = re.compile(
    rf"""([?&;](?:[\w.-]*(?:{_LETS_IN})[\w.-]*|(?:[\w.-]*[-_.])?(?:sig|key|auth))=)[^\s&;#'"<>]+""",
    re.IGNORECASE,
)
# A password may hold signs that end an address for most readers.
_PASSWORD = re.compile(r"://[^\s:/@]*:([^\s@]+)@")
# Of the environment, what is a secret by its name; a shorter value is a word that may mean no harm.
_SECRET = re.compile(
    r"(?:TOKEN|SECRET|SECRET_KEY|PASSWORD|PASSWD|API_?KEY|ACCESS_KEY(?:_ID)?|AUTH_STRING|WEBHOOK_URL)$"
)
_SHORTEST = 8


def redact(text: str) -> str:
    """Return a text without the logins in its addresses and without secrets of the environment."""
    for secret in sorted(_secrets(), key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    return _PARAMETER.sub(rf"\1{HIDDEN}", _LOGIN.sub(f"{HIDDEN}@", text))


def holds_secret(address: str) -> bool:
    """Return whether an address has a login or a token in it."""
    return bool(_LOGIN.search(address) or _PARAMETER.search(address))


def without_login(address: str) -> str:
    """Return an address that one may show, and that still leads to its page."""
    return _LOGIN.sub("", address)


def _secrets() -> Iterator[str]:
    for name, value in os.environ.items():
        found = [match[1] for match in _PASSWORD.finditer(value)]
        if _SECRET.search(name.upper()):
            # `name:password`, as Prefect takes it.
            found += [value, value.rpartition(":")[2]]
        for secret in found:
            yield from (one for one in {secret, unquote(secret)} if len(one) >= _SHORTEST)
