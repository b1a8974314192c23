"""Who may ask for what: each request passes here before any other code sees it.

1. The `Host` is a number, `localhost`, or a name that the operator gave: a page of somebody else's
   whose name was made to point here (DNS rebinding) has another one.
2. What another site has a browser ask for is refused by `Sec-Fetch-Site`; what changes something
   needs a header that no form can send, JSON, and an `Origin` that is this one.
3. Where there is a token, all but the sign-in and the static files need it: as a cookie that
   scripts cannot read and no other site can send, or as a bearer. It is compared in constant time,
   and few tries a minute are heard.
4. Method, length and time are bounded, and every answer forbids the browser what the page does not
   need: scripts and styles of other origins or in line, frames, sniffing, and keeping a copy.
"""

import asyncio
import hashlib
import hmac
import ipaddress
import secrets
import time
from collections import deque
from http.cookies import CookieError, SimpleCookie
from typing import Final
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

REQUEST_S: Final = 15.0
SAVING_S: Final = 120.0
"""For `SAVING`, which is large: 64 MiB at 5 Mbit/s."""
SAVING: Final = "/api/dataset"
MAX_QUERY_BYTES: Final = 2_048
MAX_BODY_BYTES: Final = 4_096
COOKIE: Final = "edge-console"
SESSION_S: Final = 12 * 3_600
"""A shift and its handover."""
MAX_TRIES: Final = 10
TRIES_S: Final = 60.0
ASKED_BY_US: Final = "x-edge-console"
_OPEN: Final = ("/login", "/static/")
_PAGES: Final = frozenset({"/", "/login"})

_HEADERS: Final = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=(), usb=(), serial=()",
    "cache-control": "no-store",
}


class Sessions:
    """Who has shown the token. Cookies end with this process, or after `SESSION_S`.

    Args:
        token: The secret; empty: nobody is asked.
    """

    def __init__(self, token: str) -> None:
        self._token = token.encode()
        self._key = secrets.token_bytes(32)
        self._tries: deque[float] = deque(maxlen=MAX_TRIES)

    @property
    def asked(self) -> bool:
        """Whether a token is needed."""
        return bool(self._token)

    def sign_in(self, token: str) -> str | None:
        """Return a cookie's value for the right token; None for a wrong one.

        Raises:
            PermissionError: Too many tried.
        """
        now = time.monotonic()
        if len(self._tries) == MAX_TRIES and now - self._tries[0] < TRIES_S:
            raise PermissionError("too many wrong tokens: wait a minute")
        if not hmac.compare_digest(token.encode(), self._token):
            self._tries.append(now)
            return None
        ends = str(int(time.time()) + SESSION_S)
        return f"{ends}.{self._seal(ends)}"

    def knows(self, headers: Headers) -> bool:
        """Whether a request shows the token, or a cookie that was given for it."""
        scheme, _, word = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            try:
                return self.sign_in(word.strip()) is not None
            except PermissionError:
                return False
        try:
            cookie = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
        except CookieError:
            return False
        ends, _, seal = (cookie.value if cookie else "").partition(".")
        if not hmac.compare_digest(seal.encode(), self._seal(ends).encode()):
            return False
        return int(ends) > time.time()

    def _seal(self, ends: str) -> str:
        return hmac.new(self._key, ends.encode(), hashlib.sha256).hexdigest()


class Guard:
    """The page behind its rules.

    Args:
        app: The page.
        sessions: Who has shown the token.
        names: Host names that it may be asked by, beside numbers and `localhost`.
    """

    def __init__(self, app: ASGIApp, sessions: Sessions, names: frozenset[str]) -> None:
        self._app = app
        self._sessions = sessions
        self._names = frozenset(name.lower() for name in names) | {"localhost"}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it."""
        if scope["type"] != "http":
            return
        begun = False

        async def told(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            async with asyncio.timeout(SAVING_S if scope["path"] == SAVING else REQUEST_S):
                refusal = self._refusal(scope["method"], scope["path"], Headers(scope=scope))
                if refusal is None and len(scope["query_string"]) > MAX_QUERY_BYTES:
                    refusal = _refused(414, "the question is too long")
                await (refusal or self._app)(scope, receive, told)
        except TimeoutError:
            if not begun:
                await _refused(504, "it took too long")(scope, receive, told)

    def _refusal(self, method: str, path: str, headers: Headers) -> Response | None:
        if method not in ("GET", "HEAD", "POST"):
            return _refused(405, "only GET and POST are spoken here")
        host = headers.getlist("host")
        if len(host) != 1 or not self._is_ours(host[0]):
            return _refused(421, "this name is not one of this page's (edge console --name)")
        if headers.get("sec-fetch-site", "none") not in ("same-origin", "none") and not (
            path in _PAGES and method == "GET" and headers.get("sec-fetch-mode") == "navigate"
        ):
            return _refused(403, "another site asks")
        if method == "POST" and (problem := _forged(headers, host[0])):
            return _refused(403, problem)
        if (
            self._sessions.asked
            and not path.startswith(_OPEN)
            and not self._sessions.knows(headers)
        ):
            return RedirectResponse("/login", 303) if path == "/" else _refused(401, "sign in")
        return None

    def _is_ours(self, host: str) -> bool:
        try:
            parts = urlsplit(f"//{host}")
            name = parts.hostname or ""
            _ = parts.port  # checked as it is read
        except ValueError:
            return False
        if parts.path or parts.query or parts.fragment or parts.username is not None:
            return False
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return name in self._names
        return True


def _forged(headers: Headers, host: str) -> str:
    """Say why a request that changes something may not be the page's own; empty: it is."""
    if headers.get(ASKED_BY_US) != "1":
        return f"the header {ASKED_BY_US} is missing"
    if headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        return "only JSON is taken"
    origin = headers.get("origin")
    if origin is not None and origin.partition("://")[2].lower() != host.lower():
        return "another origin asks"
    return ""


def _refused(status: int, problem: str) -> Response:
    return JSONResponse({"error": problem}, status)
