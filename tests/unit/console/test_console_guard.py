"""Who may ask the page for what: each rule of `edge.console.guard`, and what is refused by it."""

import contextlib
import hashlib
import json
import socket
import time
from pathlib import Path
from typing import Any

import pytest
from consoles import TOKEN, Serve, Stand, Visitor, judged

from edge.console import guard, serving
from edge.console.guard import MAX_TRIES, Sessions
from edge.console.serving import Options, check, read_token
from edge.errors import ConfigError
from edge.ledger import kept

WORD: dict[str, Any] = {"seq": 1, "verdict": "pass", "by": "quality", "reason": "a reflex"}


def test_every_answer_forbids_the_browser_what_the_page_does_not_need(page: Visitor) -> None:
    for path in ("/", "/static/app.js", "/api/live", "/api/records/0", "/nowhere"):
        headers = page.ask(path).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "script-src 'self'" in policy
        assert "unsafe" not in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"
        assert headers["x-frame-options"] == "DENY"
        assert headers["referrer-policy"] == "no-referrer"
        assert "server" not in headers


def test_the_files_of_the_page_hold_no_script_no_style_in_line_and_no_foreign_address() -> None:
    folder = Path(serving.__file__).parent / "static"
    files = [file for file in folder.iterdir() if file.suffix in (".html", ".js", ".css", ".svg")]
    assert len(files) > 10
    for file in files:
        text = file.read_text().replace("http://www.w3.org/2000/svg", "")
        for unfit in ("http://", "https://", "innerHTML", "insertAdjacentHTML", "document.write"):
            assert unfit not in text, (file.name, unfit)
        for unfit in (" style=", " onclick=", "<style", "javascript:", "eval("):
            assert unfit not in text, (file.name, unfit)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.1:8680", "localhost", "[::1]:8680"])
def test_numbers_and_localhost_are_answered(page: Visitor, host: str) -> None:
    assert page.ask("/api/live", host=host).status == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "box1", "localhost:x", "a@127.0.0.1", None]
)
def test_a_foreign_or_missing_host_is_refused(page: Visitor, host: str | None) -> None:
    for path in ("/", "/api/live", "/static/app.js"):
        assert page.ask(path, host=host).status == (421 if host else 400)


def test_a_name_that_the_operator_gave_is_answered(served: Serve) -> None:
    page = served(names=("Line3.plant",))
    assert page.ask("/api/live", host="line3.plant:443").status == 200
    assert page.ask("/api/live", host="line4.plant").status == 421


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_what_another_site_asks_for_is_refused(page: Visitor, site: str) -> None:
    for path in ("/api/live", "/api/records/1/frame", "/static/app.js"):
        assert page.ask(path, sec_fetch_site=site, sec_fetch_mode="no-cors").status == 403
    # A link to the page may be followed.
    assert page.ask("/", sec_fetch_site=site, sec_fetch_mode="navigate").status == 200


@pytest.mark.parametrize(
    "changed",
    [
        {"x_edge_console": None},
        {"content_type": "text/plain"},
        {"content_type": None},
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": "http://[::1"},
        {"origin": ""},
        {"sec_fetch_site": "cross-site"},
    ],
)
def test_a_forged_post_is_refused_and_nothing_is_said(
    page: Visitor, stand: Stand, changed: dict[str, str | None]
) -> None:
    before = len(stand.said)
    assert page.post("/api/override", WORD, **changed).status == 403
    assert len(stand.said) == before


def test_a_word_is_no_get(page: Visitor, stand: Stand) -> None:
    before = len(stand.said)
    assert page.ask("/api/override?seq=1&verdict=pass").status == 405
    for method in ("PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT"):
        assert page.ask("/api/override", method=method, x_edge_console="1").status in (400, 405)
    assert len(stand.said) == before


@pytest.mark.parametrize(
    "path",
    [
        "/static/../../../../etc/passwd",
        "/static/..%2f..%2fserving.py",
        "/static/%2e%2e/app.py",
        "/static//etc/passwd",
        "/static/app.py",
        "/api/records/..%2f..%2fledger.db/frame",
        "/api/records/1/..%2f..%2fledger.db",
        "/api/records/1/frame/../../../control.sock",
        "/api/records/1/parameters",
    ],
)
def test_no_file_is_reached_by_a_path(page: Visitor, path: str) -> None:
    answer = page.ask(path)
    assert answer.status in (400, 404)
    assert b"root:" not in answer.body


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/api/records?part=" + "x" * 129, 400),
        ("/api/records?part=" + "x" * guard.MAX_QUERY_BYTES, 414),
        ("/api/records?before=-1", 400),
        ("/api/records?before=99999999999999999999999", 400),
        ("/api/records?since_ms=nan", 400),
        ("/api/records?since_ms=9999999999999999", 400),
        ("/api/records?limit=%D9%A1", 400),
        ("/api/records/99999999999999999999", 404),
        ("/api/records/0", 404),
        ("/api/records/61000", 404),
    ],
)
def test_questions_have_bounds(page: Visitor, path: str, status: int) -> None:
    assert page.ask(path).status == status


def test_an_endless_head_is_refused(page: Visitor) -> None:
    with (
        socket.create_connection(("127.0.0.1", page.port), timeout=60) as connection,
        contextlib.suppress(ConnectionError),
    ):
        for _ in range(4):
            connection.sendall(b"GET /" + b"x" * serving.MAX_HEAD_BYTES)
        assert connection.recv(12) == b"HTTP/1.1 400"


def test_a_page_of_a_search_has_a_bound(page: Visitor) -> None:
    assert len(page.get("/api/records?limit=1000000")["lines"]) <= 100


def test_a_large_body_is_refused(page: Visitor, stand: Stand) -> None:
    before = len(stand.said)
    long = WORD | {"reason": "x" * guard.MAX_BODY_BYTES}
    assert page.post("/api/override", long).status == 413
    assert page.post("/api/override", WORD | {"more": 1}).status == 400
    assert page.post("/api/override", [[[[]]]]).status == 400
    assert len(stand.said) == before


def test_a_slow_head_and_an_idle_connection_are_ended(
    served: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "HEAD_S", 0.2)
    page = served()
    for begun in (b"", b"GET /api/live HTTP/1.1\r\nHost: 127.0.0.1\r\nX-A: "):
        with socket.create_connection(("127.0.0.1", page.port), timeout=60) as connection:
            connection.sendall(begun)
            assert (
                connection.recv(1) == b""
            )  # the other end hung up; a wait of a minute is the bound
    monkeypatch.setattr(serving, "HEAD_S", 60)
    assert page.ask("/api/live").status == 200


def test_who_reads_an_answer_slowly_gets_all_of_it(
    served: Serve, stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = bytes(8 << 20)
    seq = stand.record(judged(10_009), pixels)
    wanted = kept.place(stand.folder / "ledger" / "frames", hashlib.sha256(pixels).hexdigest())
    deadline = time.monotonic() + 60
    while not wanted.exists():
        assert time.monotonic() < deadline
        time.sleep(0.001)  # between two looks, until the deadline
    monkeypatch.setattr(serving, "HEAD_S", 0.2)
    page = served()
    with socket.socket() as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 << 10)  # or the kernel takes it all
        slow.settimeout(60)
        slow.connect(("127.0.0.1", page.port))
        said = f"GET /api/records/{seq}/frame HTTP/1.1\r\nHost: localhost\r\n\r\n"
        slow.sendall(said.encode())
        assert slow.recv(12) == b"HTTP/1.1 200"
        for _ in range(2):  # as long as two idle ones are borne, one after the other
            with socket.create_connection(("127.0.0.1", page.port), timeout=60) as idle:
                assert idle.recv(1) == b""
        left = b"".join(iter(lambda: slow.recv(1 << 20), b""))
    assert left.partition(b"\r\n\r\n")[2] == pixels


def test_more_connections_than_the_bound_are_let_go(
    served: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "MAX_CONNECTIONS", 2)
    page = served()
    held = [socket.create_connection(("127.0.0.1", page.port), timeout=60) for _ in range(2)]
    try:
        for connection in held:
            connection.sendall(b"GET /static/mark.svg HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            assert connection.recv(12) == b"HTTP/1.1 200"
        with pytest.raises((ConnectionError, OSError)):
            page.ask("/api/live")
    finally:
        for connection in held:
            connection.close()


# With a token


@pytest.fixture(scope="module")
def locked(served: Serve) -> Visitor:
    return served(token=TOKEN)


def test_without_the_token_nothing_of_the_line_is_shown(locked: Visitor, stand: Stand) -> None:
    before = len(stand.said)
    for path in ("/api/live", "/api/records", "/api/records/1/frame", "/api/tried", "/nowhere"):
        assert locked.ask(path).status == 401
    assert locked.post("/api/override", WORD).status == 401
    asked = locked.ask("/")
    assert (asked.status, asked.headers["location"]) == (303, "/login")
    assert len(stand.said) == before


def test_the_sign_in_needs_no_token(locked: Visitor) -> None:
    for path in ("/login", "/static/login.js", "/static/style.css"):
        assert locked.ask(path).status == 200


def test_the_right_token_gets_a_cookie_that_scripts_and_other_sites_do_not(locked: Visitor) -> None:
    answer = locked.post("/login", {"token": TOKEN})
    assert answer.status == 200
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert TOKEN not in cookie
    value = cookie.split(";")[0]
    assert locked.ask("/api/live", cookie=value).status == 200
    assert locked.ask("/api/live", cookie=value[:-1] + "0").status == 401
    name, _, ends = value.partition("=")
    later = f"{name}={int(ends.split('.')[0]) + 9}.{ends.split('.')[1]}"
    assert locked.ask("/api/live", cookie=later).status == 401
    for broken in (f"{name}=", f"{name}=.", f"{name}=x.y", "é;=", name):
        assert locked.ask("/api/live", cookie=broken).status == 401
    secure = locked.post("/login", {"token": TOKEN}, x_forwarded_proto="https")
    assert "Secure" in secure.headers["set-cookie"]


def test_a_machine_may_show_the_token_as_a_bearer(locked: Visitor) -> None:
    assert locked.ask("/api/live", authorization=f"Bearer {TOKEN}").status == 200
    assert locked.ask("/api/live", authorization="Bearer another one than that").status == 401
    assert locked.ask("/api/live", authorization=f"Basic {TOKEN}").status == 401


def test_a_forged_sign_in_is_refused(locked: Visitor) -> None:
    assert locked.post("/login", {"token": TOKEN}, x_edge_console=None).status == 403
    assert locked.post("/login", {"token": "é"}).status == 403
    assert locked.post("/login", {"token": 1}).status == 400


def test_tokens_are_not_guessed_by_trying(served: Serve) -> None:
    page = served(token=TOKEN)
    tries = [page.post("/login", {"token": f"wrong {n}"}).status for n in range(MAX_TRIES + 1)]
    assert tries == [403] * MAX_TRIES + [429]
    # Not even the right one is heard now, nor by the other door.
    assert page.post("/login", {"token": TOKEN}).status == 429
    assert page.ask("/api/live", authorization=f"Bearer {TOKEN}").status == 401


def test_a_cookie_ends_with_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    from starlette.datastructures import Headers

    sessions = Sessions(TOKEN)
    monkeypatch.setattr(guard, "SESSION_S", 0)
    over = sessions.sign_in(TOKEN)
    monkeypatch.setattr(guard, "SESSION_S", 60)
    fresh = sessions.sign_in(TOKEN)
    assert not sessions.knows(Headers({"cookie": f"{guard.COOKIE}={over}"}))
    assert sessions.knows(Headers({"cookie": f"{guard.COOKIE}={fresh}"}))
    assert not Sessions(TOKEN).knows(Headers({"cookie": f"{guard.COOKIE}={fresh}"}))


# Where it may listen


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7"])
def test_an_address_that_others_reach_needs_a_token(host: str) -> None:
    with pytest.raises(ConfigError, match="token-file"):
        check(Options(host, 0, Path()))
    check(Options(host, 0, Path(), TOKEN))


def test_loopback_needs_none() -> None:
    for host in ("127.0.0.1", "::1"):
        check(Options(host, 0, Path()))
    with pytest.raises(ConfigError):
        check(Options("localhost.evil.example", 0, Path()))


def test_a_token_file_is_secret_and_long_enough(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\nmore\n")
    file.chmod(0o600)
    assert read_token(file) == TOKEN
    file.chmod(0o604)
    with pytest.raises(ConfigError, match="by everybody"):
        read_token(file)
    file.chmod(0o600)
    for text in ("", "short", "x" * 300):
        file.write_text(text)
        with pytest.raises(ConfigError, match="characters"):
            read_token(file)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_token(tmp_path / "absent")


def test_errors_are_json(page: Visitor) -> None:
    assert json.loads(page.ask("/api/records/61000").body)["error"]
