"""The routes: what the page's scripts ask, each answered from one bounded question.

Files of the page are read once, at the start, and served by their name in that list. Frames are
served by the place of a record that names them: no path and no digest comes from outside.
"""

import asyncio
import shlex
import tempfile
import weakref
from collections.abc import AsyncIterator, Callable
from functools import partial
from importlib import resources
from pathlib import Path
from typing import IO, Any, Final, NamedTuple, TypeVar

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from edge.config import DeviceConfig
from edge.console import dataset, questions
from edge.console.dataset import Made
from edge.console.guard import COOKIE, MAX_BODY_BYTES, SAVING, SESSION_S, Sessions
from edge.console.live import Live
from edge.console.pictures import picture
from edge.console.questions import Asked
from edge.console.snapshots import BusyError, Snapshots, View
from edge.contracts.verdict import Kind
from edge.errors import EdgeError, StorageError, TransportError
from edge.ledger import kept, reading
from edge.ledger import record as records
from edge.ledger.entry import MAX_ID_CHARS, PARAMETERS, Correction
from edge.ledger.kept import Keeping
from edge.ledger.record import Record

Say = Callable[[Correction], tuple[str, int]]
"""Tells the daemon what a person says; returns why it refused, or "", and the record's place."""

_MAX_SAYING: Final = 4
_MAX_SAVING: Final = 2
_PIECE_BYTES: Final = 256 << 10
_MAX_NS: Final = (1 << 63) - 1
_NEWEST: Final = 300
"""Verdicts among which the newest kept frame is looked for."""
_MEDIA_TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_Found = TypeVar("_Found")


class _Override(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    seq: int
    verdict: Kind
    by: str
    reason: str


class _SignIn(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    token: str


class Page(NamedTuple):
    """What the routes answer from.

    Attributes:
        state: The state directory.
        say: None: nobody can say anything here.
    """

    settings: DeviceConfig
    state: Path
    live: Live
    snapshots: Snapshots
    sessions: Sessions
    say: Say | None


def application(page: Page) -> Starlette:
    """Return the page, without its guard."""
    answers = _Answers(page)
    routes = [
        Route("/", partial(answers.static, name="index.html")),
        Route("/login", answers.sign_in, methods=["POST"]),
        Route("/login", partial(answers.static, name="login.html")),
        Route("/static/{name}", answers.static),
        Route("/api/live", answers.live),
        Route("/api/newest", answers.newest),
        Route("/api/records", answers.search),
        Route("/api/records/{seq:int}", answers.record),
        Route("/api/records/{seq:int}/body", answers.body),
        Route("/api/records/{seq:int}/{which}", answers.frame),
        Route("/api/tried", answers.tried),
        Route(SAVING, answers.dataset),
        Route("/api/override", answers.override, methods=["POST"]),
    ]
    return Starlette(
        routes=routes,
        exception_handlers={HTTPException: _problem, EdgeError: _failure},
    )


class _Answers:
    """The routes' answers."""

    def __init__(self, page: Page) -> None:
        self._page = page
        self._frames = page.state / reading.FOLDER / kept.FOLDER
        section = page.settings.ledger.frames
        self._keeping = Keeping(pass_share=section.pass_share) if section.enabled else None
        self._saying = 0
        # One that nobody came for goes by itself, and out of here.
        self._saving: weakref.WeakSet[IO[bytes]] = weakref.WeakSet()
        self._static = _static_files()

    async def static(self, request: Request, name: str = "") -> Response:
        """A file of the page."""
        found = self._static.get(name or request.path_params["name"])
        if found is None:
            raise HTTPException(404, "no such file")
        content, media_type = found
        return Response(content, media_type=media_type)

    async def sign_in(self, request: Request) -> Response:
        """A cookie for the token."""
        asked = await _body(request, _SignIn)
        try:
            value = self._page.sessions.sign_in(asked.token) if self._page.sessions.asked else ""
        except PermissionError as many:
            raise HTTPException(429, str(many)) from many
        if value is None:
            raise HTTPException(403, "that is not the token")
        answer = _json({})
        answer.set_cookie(
            COOKIE,
            value,
            max_age=SESSION_S,
            httponly=True,
            samesite="strict",
            secure=request.headers.get("x-forwarded-proto") == "https",
        )
        return answer

    async def live(self, _: Request) -> Response:
        """Status and the last verdicts."""
        now = msgspec.structs.asdict(self._page.live.now())
        return _json(now | {"may_say": self._page.say is not None})

    async def newest(self, request: Request) -> Response:
        """The newest record whose frame is kept."""
        pipeline = _text(request, "pipeline")

        def look(view: View) -> int:
            for found in questions.newest(view, pipeline, _NEWEST):
                if self._is_kept(found.digests.frame):
                    return found.seq
            return 0

        return _json({"seq": await self._ask(look)})

    async def search(self, request: Request) -> Response:
        """A page of verdicts."""
        asked = Asked(
            part=_text(request, "part"),
            frame=_text(request, "frame"),
            pipeline=_text(request, "pipeline"),
            kind=_text(request, "kind"),
            reason=_text(request, "reason"),
            since_ns=_number(request, "since_ms") * 1_000_000,
            until_ns=_number(request, "until_ms") * 1_000_000,
            before=_number(request, "before"),
            limit=min(max(_number(request, "limit") or 50, 1), questions.MAX_PAGE),
            worded=_number(request, "worded") > 0,
            pictures=_number(request, "pictures") > 0,
        )

        def look(view: View) -> dict[str, Any]:
            found = questions.search(view, asked)
            if asked.pictures:
                lines = [
                    msgspec.structs.replace(line, kept=self._is_kept(line.frame))
                    for line in found.lines
                ]
                found = msgspec.structs.replace(found, lines=lines)
            return msgspec.structs.asdict(found) | _span(view)

        return _json(await self._ask(look))

    async def record(self, request: Request) -> Response:
        """One record, with what belongs to it."""
        seq = _place(request)

        def look(view: View) -> dict[str, Any]:
            row = view.ledger.record(seq)
            if row is None:
                raise HTTPException(404, f"record {seq} is not here: it was pruned, or is to come")
            record = records.decode(row.body)
            about: dict[str, Any] = {
                "record": msgspec.Raw(row.body),
                "head": row.head.hex(),
                "words": questions.words_of(view, seq),
                "of_part": questions.of_part(view, row.part_id) if row.part_id else [],
                "images": {},
                "commands": self._commands(seq),
            }
            if isinstance(record, Record):
                about["images"] = {
                    "frame": self._why_no_frame(record),
                    "reference": self._why_no_reference(record),
                }
            return about | _span(view)

        return _json(await self._ask(look))

    async def body(self, request: Request) -> Response:
        """The bytes of a record that are hashed and signed."""
        seq = _place(request)
        row = await self._ask(lambda view: view.ledger.record(seq))
        if row is None:
            raise HTTPException(404, f"record {seq} is not here")
        return Response(row.body, media_type="application/json")

    async def frame(self, request: Request) -> Response:
        """A kept picture: the `frame` of a record, or its `reference`."""
        seq, which = _place(request), request.path_params["which"]
        if which not in ("frame", "reference"):
            raise HTTPException(404, "a record has a frame and a reference")

        def look(view: View) -> Response:
            row = view.ledger.record(seq)
            record = None if row is None else records.decode(row.body)
            if not isinstance(record, Record):
                raise HTTPException(404, f"no verdict is recorded at {seq}")
            digest = record.digests.frame if which == "frame" else record.digests.reference
            content = kept.read(self._frames, digest)
            if content is None:
                raise HTTPException(404, "it is not kept")
            shown = picture(content, record.content.get(which, ""))
            if shown is None:
                raise HTTPException(415, "a browser cannot show these pixels")
            return Response(shown.content, media_type=shown.media_type)

        return await self._ask(look)

    async def tried(self, request: Request) -> Response:
        """Scores of a range, and the parameters that judged them."""
        pipeline = _text(request, "pipeline")
        since_ns = _number(request, "since_ms") * 1_000_000
        until_ns = _number(request, "until_ms") * 1_000_000

        def look(view: View) -> dict[str, Any]:
            found = questions.tried(view, pipeline, since_ns, until_ns)
            groups = [
                msgspec.structs.asdict(group) | {"settings": self._settings_of(group.parameters)}
                for group in found.groups
            ]
            about = {"groups": groups, "looked_at": found.looked_at, "cut": found.cut}
            return about | _span(view)

        return _json(await self._ask(look))

    async def dataset(self, request: Request) -> Response:
        """What people said in a range, as a zip file of frames with their truth."""
        since_ns = _number(request, "since_ms") * 1_000_000
        until_ns = _number(request, "until_ms") * 1_000_000

        if sum(not each.closed for each in self._saving) >= _MAX_SAVING:
            raise HTTPException(503, "others save: try again in a moment")
        file = tempfile.TemporaryFile()  # noqa: SIM115 - it is closed when it has been sent
        self._saving.add(file)

        def look(view: View) -> tuple[int, Made]:
            return view.ledger.size(), dataset.write(file, view, self._frames, since_ns, until_ns)

        async def pieces() -> AsyncIterator[bytes]:
            with file:
                file.seek(0)
                while piece := file.read(_PIECE_BYTES):
                    yield piece

        try:
            size, made = await self._ask(look)
            if not made.parts:
                raise HTTPException(404, "no word of that time has its frame kept")
        except BaseException:
            file.close()
            raise
        headers = {
            "content-disposition": f'attachment; filename="said-{size}.zip"',
            "content-length": str(file.tell()),
            "x-parts": str(made.parts),
            "x-without-frame": str(made.without_frame),
            "x-cut": str(int(made.cut)),
        }
        return StreamingResponse(pieces(), media_type="application/zip", headers=headers)

    async def override(self, request: Request) -> Response:
        """Have the daemon record what a person says."""
        asked = await _body(request, _Override)
        if self._page.say is None:
            raise HTTPException(403, "this page only shows (it was started with --read-only)")
        correction = Correction(asked.verdict, asked.by, asked.reason, seq=asked.seq)
        if asked.seq < 1 or asked.seq > _MAX_NS or (problem := correction.problem()):
            raise HTTPException(400, "seq: expected a place" if asked.seq < 1 else problem)
        if self._saying >= _MAX_SAYING:
            raise HTTPException(503, "others speak: try again in a moment")
        self._saying += 1
        try:
            refusal, seq = await asyncio.to_thread(self._page.say, correction)
        finally:
            self._saying -= 1
        if refusal:
            raise HTTPException(409, refusal)
        self._page.snapshots.renew()
        return _json({"seq": seq})

    async def _ask(self, question: Callable[[View], _Found]) -> _Found:
        return await self._page.snapshots.ask(question)

    def _is_kept(self, digest: str) -> bool:
        return bool(digest) and kept.place(self._frames, digest).is_file()

    def _why_no_frame(self, record: Record) -> str:
        """Say why there is no picture of a record; empty: there is one."""
        digest = record.digests.frame
        if self._is_kept(digest):
            return ""
        if not digest:
            return "no frame is named by this record"
        if self._keeping is None:
            return "frames are not kept on this box (ledger.frames.enabled)"
        if not self._keeping.wants(record.verdict, bytes.fromhex(digest)):
            share = f"{self._keeping.pass_share:.1%}"
            return f"not kept: of frames that passed, {share} are (ledger.frames.pass_share)"
        return (
            "gone: the oldest frames give way to newer ones (ledger.frames.max_bytes, max_age_days)"
        )

    def _why_no_reference(self, record: Record) -> str:
        if not record.digests.reference:
            return "judged without a reference image"
        return "" if self._is_kept(record.digests.reference) else "not kept, or gone"

    def _commands(self, seq: int) -> dict[str, str]:
        folder = shlex.quote(str(self._page.state))
        return {
            "prove": f"edge ledger prove --seq {seq} {folder}",
            "replay": f"edge ledger replay --seq {seq} {folder}",
        }

    def _settings_of(self, digest: str) -> dict[str, Any]:
        """Return the guests' parameters by role; empty where the document is not kept."""
        content = kept.read(self._frames, digest)
        try:
            document = msgspec.json.decode(content or b"[]", type=list[dict[str, Any]])
        except (msgspec.DecodeError, UnicodeDecodeError):
            return {}
        return dict(zip(PARAMETERS, document, strict=False))


def _span(view: View) -> dict[str, Any]:
    return {
        "first": view.ledger.marks["anchor"].seq + 1,
        "last": view.ledger.size(),
        "receipted": view.ledger.marks["receipt"].seq,
        "as_of_ms": view.copied_at_ns // 1_000_000,
    }


def _static_files() -> dict[str, tuple[bytes, str]]:
    folder = resources.files("edge.console") / "static"
    return {
        file.name: (file.read_bytes(), media_type)
        for file in folder.iterdir()
        if (media_type := _MEDIA_TYPES.get(Path(file.name).suffix)) is not None
    }


def _json(content: object) -> Response:
    return Response(msgspec.json.encode(content), media_type="application/json")


async def _problem(_: Request, problem: Exception) -> Response:
    assert isinstance(problem, HTTPException)
    answer = _json({"error": str(problem.detail)})
    answer.status_code = problem.status_code
    return answer


async def _failure(_: Request, failed: Exception) -> Response:
    answer = _json({"error": str(failed)})
    known = isinstance(failed, StorageError | TransportError | BusyError)
    answer.status_code = 503 if known else 500
    return answer


async def _body(request: Request, kind: type[_Found]) -> _Found:
    content = b""
    async for piece in request.stream():
        content += piece
        if len(content) > MAX_BODY_BYTES:
            raise HTTPException(413, f"at most {MAX_BODY_BYTES} bytes are taken")
    try:
        return msgspec.json.decode(content, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as wrong:
        raise HTTPException(400, str(wrong)) from wrong


def _text(request: Request, name: str) -> str:
    text = request.query_params.get(name, "").strip()
    if len(text) > MAX_ID_CHARS:
        raise HTTPException(400, f"{name}: at most {MAX_ID_CHARS} characters")
    return text


def _number(request: Request, name: str) -> int:
    text = request.query_params.get(name, "0")
    # Milliseconds become nanoseconds, and these must fit into SQLite's 64 bits.
    if not (text.isascii() and text.isdigit()) or int(text[:20]) > _MAX_NS // 1_000_000:
        raise HTTPException(400, f"{name}: expected a whole number from 0")
    return int(text)


def _place(request: Request) -> int:
    seq = int(request.path_params["seq"])
    if not 0 < seq <= _MAX_NS:
        raise HTTPException(404, "no such record")
    return seq
