"""How a person on this box speaks to the daemon: two sockets, each for one kind of request.

Rules:

1. Unix sockets below the storage folder, mode 0600 in folders of mode 0700: who may not read the
   ledger may not speak here either, and nothing of it can be reached from the network. The kernel
   says who connected; what they call themselves is kept beside it.
2. What a socket grants is one kind of request. `control.sock` has the daemon look for a deployment,
   keep to the one it has, or return to the one before, and learn anew what is usual.
   `words/words.sock` takes what a person says of a verdict, in a folder of its own, so that a
   confined process can be shown it without the other: the operator's page is. The one being busy
   holds nobody up at the other.
3. One request a connection: a line of JSON, and a line of JSON back, of bounded size and time.
4. No request changes a verdict, record or setting, and no deployment runs for one that is not
   signed by the root that was installed with the device.
"""

import asyncio
import contextlib
import os
import pwd
import socket
import struct
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Annotated, Final, Generic, Literal, TypeVar

import msgspec
import structlog

from edge.errors import StorageError, TransportError
from edge.ledger.entry import MAX_BY_CHARS, MAX_REASON_CHARS, Correction

log = structlog.get_logger("edge.daemon")

CONTROL: Final = "control.sock"
"""Takes `Deployments` and `LearnAnew`. Below the storage folder."""
WORDS: Final = "words/words.sock"
"""Takes `Override`."""
MAX_LINE_BYTES: Final = 16 << 10
PATIENCE_S: Final = 10.0
"""To say a request, and for the answer to it: a slow disk takes a second or two."""
_MAX_CONNECTIONS: Final = 8
_CREDENTIALS: Final = struct.Struct("3i")  # pid, uid, gid: unix(7), SO_PEERCRED


class Said(msgspec.Struct, frozen=True):
    """The answer to a request.

    Attributes:
        refusal: Why it was refused; empty: it was done.
        seq: Place of the record that was made; 0: none was.
    """

    refusal: str = ""
    seq: int = 0


class Override(msgspec.Struct, frozen=True, tag="override"):
    """Record what a person says of a verdict."""

    correction: Correction


class Deployments(msgspec.Struct, frozen=True, tag="deployments"):
    """Do something about deployments.

    Attributes:
        act: What.
        repository: Another address to look at, once; with `look` alone.
        leaves: Digest of the deployment that is to be left, as the person saw it; with `rollback`
            alone. Empty: whichever it is by then.
    """

    act: Literal["look", "pin", "unpin", "rollback"]
    repository: Annotated[str, msgspec.Meta(max_length=1_000)] = ""
    leaves: Annotated[str, msgspec.Meta(pattern=r"\A([0-9a-f]{64})?\Z")] = ""


class LearnAnew(msgspec.Struct, frozen=True, tag="learn-anew"):
    """Forget what is usual, and learn it from now on: a lamp was exchanged, say.

    Attributes:
        by: Who says so: a name or a role.
        reason: Why, in their words.
        pipeline: Whose; empty: of each.
    """

    by: str
    reason: str
    pipeline: str = ""

    def problem(self) -> str:
        """Say what is wrong with it; empty: nothing."""
        for name, text, longest in (
            ("by", self.by, MAX_BY_CHARS),
            ("reason", self.reason, MAX_REASON_CHARS),
        ):
            if not text.strip() or len(text) > longest or not text.isprintable():
                return f"{name}: expected 1 to {longest} printable characters"
        return ""


Request = Override | Deployments | LearnAnew
Record = Callable[[Correction], Awaitable[tuple[str, int]]]
Change = Callable[[Deployments], Awaitable[str]]
Learn = Callable[[LearnAnew, str], Awaitable[str]]

_controls: Final[msgspec.json.Decoder[Deployments | LearnAnew]] = msgspec.json.Decoder(
    Deployments | LearnAnew
)
_words: Final = msgspec.json.Decoder(Override)


_Asked = TypeVar("_Asked")


class Control:
    """The daemon's end.

    Args:
        folder: The storage folder.
        record: Records a correction; tells why it was refused, or "", and the record's place. None
            where nothing is recorded.
        change: Does something about deployments; tells why it was refused, or "". None where a
            local folder runs.
        learn: Learns anew what is usual, for whoever is named; tells why it was refused, or "".
    """

    def __init__(
        self, folder: Path, record: Record | None, change: Change | None, learn: Learn
    ) -> None:
        self._record = record
        self._change = change
        self._learn = learn
        self._control = _Door(folder / CONTROL, _controls, self._about_the_box)
        self._words = _Door(folder / WORDS, _words, self._about_verdicts)

    async def serve(self) -> None:
        """Answer until cancelled. Where no socket can be made it is logged, and frames go on."""
        async with asyncio.TaskGroup() as doors:
            doors.create_task(self._control.serve(), name="control")
            doors.create_task(self._words.serve(), name="words")

    async def _about_verdicts(self, request: Override, peer: str) -> Said:
        correction = request.correction
        if problem := correction.problem():
            return Said(problem)
        if self._record is None:
            return Said("this device records nothing: ledger.enabled is off")
        return Said(*await self._record(msgspec.structs.replace(correction, via=peer)))

    async def _about_the_box(self, request: Deployments | LearnAnew, peer: str) -> Said:
        if isinstance(request, LearnAnew):
            return Said(request.problem() or await self._learn(request, peer))
        return await self._about_deployments(request, peer)

    async def _about_deployments(self, request: Deployments, peer: str) -> Said:
        if self._change is None:
            return Said(
                "a local folder runs here (edge run --deployment): nothing can be exchanged"
            )
        try:
            refusal = await self._change(request)
        except StorageError as failed:
            refusal = str(failed)
        log.info(
            "deployments_asked",
            act=request.act,
            repository=request.repository,
            by=peer,
            refusal=refusal,
        )
        return Said(refusal)


class _Door(Generic[_Asked]):
    """A socket that takes one kind of request.

    Args:
        place: Of the socket; its folder is made.
        requests: Reads what it takes.
        answer: Does what is asked by somebody, whom the kernel names.
    """

    def __init__(
        self,
        place: Path,
        requests: "msgspec.json.Decoder[_Asked]",
        answer: Callable[[_Asked, str], Awaitable[Said]],
    ) -> None:
        self._place = place
        self._requests = requests
        self._answer = answer
        self._connections = 0

    async def serve(self) -> None:
        try:
            listening = _bound(self._place)
        except OSError as failed:
            log.error("control_closed", detail=f"{self._place}: {failed.strerror}")
            return
        server = await asyncio.start_unix_server(
            self._converse, sock=listening, limit=MAX_LINE_BYTES, backlog=_MAX_CONNECTIONS
        )
        try:
            await server.serve_forever()
        finally:
            with contextlib.suppress(OSError):
                self._place.unlink()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections += 1
        try:
            # One that says nothing, or does not listen, is let go.
            async with asyncio.timeout(PATIENCE_S):
                said = Said("too many speak at once: try again")
                if self._connections <= _MAX_CONNECTIONS:
                    line = await reader.readline()
                    # A thread asks who it is: the answer may be in a directory on the network.
                    said = await self._hear(line, await asyncio.to_thread(_peer, writer))
                writer.write(msgspec.json.encode(said) + b"\n")
                await writer.drain()
        except (TimeoutError, OSError):
            log.warning("control_unanswered")
        except ValueError:
            log.warning("control_refused", detail=f"a request of more than {MAX_LINE_BYTES} bytes")
        finally:
            self._connections -= 1
            writer.close()

    async def _hear(self, line: bytes, peer: str) -> Said:
        try:
            request = self._requests.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as wrong:
            return Said(f"not a request that {self._place.name} takes: {wrong}")
        return await self._answer(request, peer)


def ask(folder: Path, request: Request) -> Said:
    """Ask the daemon that owns a storage folder for something. Blocks for seconds at most.

    Raises:
        StorageError: No daemon listens there, or this user may not speak to it.
        TransportError: It gave no answer.
    """
    place = folder / (WORDS if isinstance(request, Override) else CONTROL)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(PATIENCE_S)
        try:
            with _named(place) as name:
                connection.connect(name)
        except (FileNotFoundError, ConnectionRefusedError) as absent:
            raise StorageError(
                f"{folder}: no daemon runs on this folder, and only it may change it (start it)"
            ) from absent
        except OSError as refused:
            raise StorageError(
                f"{place}: {refused.strerror} (speak as the daemon's user or as root)"
            ) from refused
        try:
            connection.sendall(msgspec.json.encode(request) + b"\n")
            with connection.makefile("rb") as answers:
                return msgspec.json.decode(answers.readline(MAX_LINE_BYTES), type=Said)
        except (OSError, msgspec.DecodeError) as silent:
            raise TransportError(
                f"{place}: the daemon gave no answer: {silent} (whether it was done, "
                "`edge ledger show` or `edge deploy status` says)"
            ) from silent


def _bound(place: Path) -> socket.socket:
    place.parent.mkdir(mode=0o700, exist_ok=True)
    place.unlink(missing_ok=True)  # of a daemon that was killed; the folder is ours
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with _named(place) as name:
            listening.bind(name)
        place.chmod(0o600)  # nobody can connect before it listens
    except OSError:
        listening.close()
        raise
    return listening


@contextlib.contextmanager
def _named(place: Path) -> Iterator[str]:
    """Yield a short name of a socket: the kernel takes 107 bytes, and folders lie deep."""
    descriptor = os.open(place.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{descriptor}/{place.name}"
    finally:
        os.close(descriptor)


def _peer(writer: asyncio.StreamWriter) -> str:
    """Say who is at the other end, by the kernel's word."""
    connection = writer.get_extra_info("socket")
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    _, user, _ = _CREDENTIALS.unpack(credentials)
    with contextlib.suppress(KeyError):  # a user without a name, as in a container
        return f"uid {user} ({pwd.getpwuid(user).pw_name})"
    return f"uid {user}"
