"""The HTTP interface of a Ray cluster's head: jobs, packages, nodes, logs.

Asked directly: what it takes to import Ray's own client is more than a whole submission takes.
"""

import json
import os
import urllib.error
import urllib.request
from collections.abc import Mapping
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from cluster.credentials import refuse_secret
from cluster.ray_cli import ClusterFailed

DEFAULT_ADDRESS = "http://127.0.0.1:8265"
"""Where a head on this machine, or an ssh tunnel to one, answers."""
ADDRESS_VARIABLES = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")
TIMEOUT_S = 10.0

_NEEDS_TOKEN = (
    "asks for a token: set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH to the file of that "
    "cluster's (docs/cluster.md)"
)
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Follows none: the token would go along to wherever that leads."""

    def redirect_request(self, *_: Any) -> None:
        """Refuse."""


class Dashboard:
    """A head's dashboard, and the headers that it is asked with."""

    def __init__(self, url: str, *, headers: Mapping[str, str]) -> None:
        """Raise ValueError for what is no web address."""
        refuse_secret("address", url)
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"address={url}; must be a dashboard's, such as {DEFAULT_ADDRESS}")
        self.url = url.rstrip("/")
        self._headers = dict(headers)
        # A proxy from the user's environment cannot reach this machine's loopback.
        proxies: dict[str, str] | None = {} if parts.hostname in _LOOPBACK else None
        self._opener = urllib.request.build_opener(
            urllib.request.ProxyHandler(proxies), _NoRedirect()
        )

    @classmethod
    def at(cls, address: str | None) -> "Dashboard":
        """Find a cluster as `ray job` does: by address, else by Ray's variables, else here.

        Unlike there, an address that is given beats the variables.
        """
        known = (os.environ.get(name) for name in ADDRESS_VARIABLES)
        url = address or next(filter(None, known), DEFAULT_ADDRESS)
        return cls(url, headers=_headers_from_environment())

    def open(
        self, path: str, *, method: str = "GET", body: bytes | None = None, timeout_s: float
    ) -> HTTPResponse:
        """Return the answer while it comes. Raises OSError, HTTPError among them."""
        request = urllib.request.Request(self.url + path, method=method, data=body)
        for name, value in self._headers.items():
            request.add_header(name, value)
        answer: HTTPResponse = self._opener.open(request, timeout=timeout_s)
        return answer

    def ask(
        self, path: str, *, method: str = "GET", content: Any = None, timeout_s: float = TIMEOUT_S
    ) -> Any:
        """Return the JSON of the answer, None where it has none.

        Content goes as JSON, bytes as they are. Raises ClusterFailed, in one line, unless it is a
        success.
        """
        is_raw = content is None or isinstance(content, bytes)
        body = content if is_raw else json.dumps(content).encode()
        try:
            with self.open(path, method=method, body=body, timeout_s=timeout_s) as answer:
                text = answer.read()
                return json.loads(text) if text else None
        except urllib.error.HTTPError as error:
            with error:
                raise ClusterFailed(self._tell(error)) from error
        except (OSError, HTTPException) as error:
            reason = getattr(error, "reason", None) or error
            raise ClusterFailed(
                f"address={self.url}; does not answer: {reason}; start the cluster, or its tunnel"
            ) from error
        except ValueError as error:
            raise ClusterFailed(f"address={self.url}; must be a Ray dashboard's") from error

    def request(self, path: str, *, method: str = "GET") -> dict[str, Any] | None:
        """Return the JSON with which the dashboard answers, None unless it is a success."""
        try:
            content: dict[str, Any] | None = self.ask(path, method=method)
            return content
        except ClusterFailed:
            return None

    def _tell(self, error: urllib.error.HTTPError) -> str:
        if error.code == 401:
            return f"address={self.url}; {_NEEDS_TOKEN}"
        if error.code == 403:
            return f"address={self.url}; refuses this token: RAY_AUTH_TOKEN_PATH must be its own's"
        lines = error.read().decode(errors="replace").strip().splitlines()
        said = lines[-1] if lines else error.reason
        return f"address={self.url}; answers with {error.code}: {said}"


def _headers_from_environment() -> dict[str, str]:
    headers: dict[str, str] = json.loads(os.environ.get("RAY_JOB_HEADERS") or "{}")
    if not any(name.lower() == "authorization" for name in headers) and (token := _find_token()):
        headers["Authorization"] = f"Bearer {token}"
    return headers


def _find_token() -> str:
    """Return the token that Ray itself would use, empty where it would use none."""
    path = os.environ.get("RAY_AUTH_TOKEN_PATH")
    if not path and os.environ.get("RAY_AUTH_MODE", "").lower() != "token":
        return ""
    if token := os.environ.get("RAY_AUTH_TOKEN"):
        return token.strip()
    file = Path(path or "~/.ray/auth_token").expanduser()
    try:
        return file.read_text(encoding="utf-8").strip()
    except OSError as error:
        reason = error.strerror or error
        raise ValueError(f"RAY_AUTH_TOKEN_PATH={file}; must be a token's file: {reason}") from error
