"""Announce that production has changed: to a webhook of one's own, and to Slack.

An announcement that does not arrive is only a warning: what it is about has happened.
"""

import os
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import requests
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_exponential

from pipeline.registry.ledger import Action

WEBHOOK, SLACK = "PIPELINE_WEBHOOK_URL", "SLACK_WEBHOOK_URL"
# Seconds for the connection, and once more for the answer.
TIMEOUT = 5.0
ATTEMPTS = 3
# Seconds before the second attempt; twice as many before the third.
BACKOFF = 0.5
# Slack refuses a longer block, in which `&` counts as the five characters of `&amp;`.
LONGEST_TEXT = 3000


@dataclass(frozen=True)
class Announcement:
    """What happened to a registered model.

    Attributes:
        version: the version that it is about; None where there is none.
        previous: the version in production before; where aliases were moved by hand, the one that
            the ledger says.
        summary: details, in lines of plain text.
        url: the page that shows more.
    """

    action: Action
    name: str
    version: int | None
    previous: int | None
    who: str
    reason: str
    summary: tuple[str, ...]
    url: str | None

    @property
    def title(self) -> str:
        """What happened, in one line."""
        return self.action.sentence(self.name, self.version, self.previous)


class _Undelivered(Exception):
    """The reason without the address, which may hold a secret."""


class _Retryable(_Undelivered):
    """Trying again can help."""


def announce(event: Announcement) -> None:
    """Send an announcement to the webhooks that the environment names; there may be none.

    A webhook that fails is one line on stderr, and no error.
    """
    for variable, make in ((WEBHOOK, as_json), (SLACK, as_slack)):
        if not (url := os.environ.get(variable, "").strip()):
            continue
        try:
            host = _host(url)
            retrying = Retrying(
                retry=retry_if_exception_type(_Retryable),
                stop=stop_after_attempt(ATTEMPTS),
                wait=wait_exponential(BACKOFF),
                reraise=True,
            )
            retrying(_post, url, host, make(event))
        except _Undelivered as error:
            print(f"warning: {variable}: {error}; the announcement is lost", file=sys.stderr)


def as_json(event: Announcement) -> dict[str, Any]:
    """Return an announcement as the JSON that a webhook of one's own receives."""
    name = f"model.{event.action.replace(' ', '_')}"
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return {"event": name, "time": now, "title": event.title, **asdict(event)}


def as_slack(event: Announcement) -> dict[str, Any]:
    """Return an announcement as an incoming webhook of Slack takes it."""
    title = _escape(event.title)
    texts = [f"*{_shorten(title)}*", _lines([f"{event.who}: {event.reason}", *event.summary])]
    if event.url:
        # `|` would end the address.
        texts.append(f"<{_escape(event.url.replace('|', '%7C'))}|The version in MLflow>")
    blocks = [{"type": "section", "text": {"type": "mrkdwn", "text": text}} for text in texts]
    return {"text": title, "blocks": blocks}


def _escape(text: str) -> str:
    """Return plain text as Slack shows it: without links, mentions and channels in it."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _shorten(text: str) -> str:
    return text if len(text) < LONGEST_TEXT else text[: LONGEST_TEXT - 10].rpartition(" ")[0] + " …"


def _lines(lines: Iterable[str]) -> str:
    """Return as many lines as one block takes."""
    return _shorten("\n".join(_escape(" ".join(line.split())) for line in lines))


def _host(url: str) -> str:
    """Return the host of an address; the rest may hold a secret.

    Raises:
        _Undelivered: it is not an HTTP address.
    """
    with suppress(ValueError):
        parts = urlsplit(url)
        if parts.scheme in ("http", "https") and parts.hostname and parts.port != 0:
            return parts.hostname
    raise _Undelivered("not an address; set it to one that begins with https:// or http://")


def _post(url: str, host: str, content: Mapping[str, Any]) -> None:
    """Send JSON once.

    Raises:
        _Retryable: no connection, or a status that says so.
        _Undelivered: any other status than 2xx.
    """
    try:
        # Only the status counts. A redirect is not followed: it would turn the POST into a GET.
        with requests.post(
            url, json=content, timeout=TIMEOUT, allow_redirects=False, stream=True
        ) as answer:
            status = answer.status_code
    except requests.ReadTimeout:
        # It may have arrived, so it is not sent again.
        raise _Undelivered(f"{host} did not answer within {TIMEOUT:g} s") from None
    except requests.ConnectionError:
        raise _Retryable(f"no connection to {host}") from None
    except (requests.RequestException, OSError, ValueError) as error:
        raise _Undelivered(f"cannot send to {host}: {type(error).__name__}") from None
    if status >= 500 or status == requests.codes.too_many_requests:
        raise _Retryable(f"{host} answered {status}")
    if not 200 <= status < 300:
        raise _Undelivered(f"{host} answered {status}")
