"""`edge ledger prove`, `checkpoint`, `tiles`, `key`: what is handed to others, out of a ledger.

0: done; 1: it cannot be proved or published; 2: there is no ledger, or the words make no sense.
"""

import argparse
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from edge.cli import ledger_text
from edge.cli.arguments import add_command
from edge.errors import ConfigError, ProofError
from edge.ledger import checkpoint as checkpoints
from edge.ledger import note as notes
from edge.ledger import proof as proofs
from edge.ledger import proving, publishing, reading
from edge.ledger.note import Signer
from edge.ledger.proof import Proof
from edge.ledger.reading import Reading

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

COMMANDS: Final = ("prove", "checkpoint", "tiles", "key")
_USAGE: Final = 2
_MAX_RECORD_BYTES: Final = 16 << 20


def add(commands: "Commands") -> None:
    """Add the commands."""
    summary = "write one file that proves records to somebody who has only that and a public key"
    proving_ = add_command(commands, "prove", summary)
    chosen = proving_.add_mutually_exclusive_group(required=True)
    chosen.add_argument("--part", metavar="ID", help="all records of this part")
    chosen.add_argument("--frame", metavar="ID", help="all records of this frame")
    chosen.add_argument("--seq", type=_number, metavar="N", help="the record at this place")
    proving_.add_argument(
        "--record",
        type=Path,
        metavar="FILE",
        help="with --seq: the record's bytes, where the ledger has pruned them",
    )
    proving_.add_argument(
        "--out", type=Path, metavar="FILE", help=f"default: NAME{proofs.SUFFIX} in this folder"
    )
    summary = "print the last signed checkpoint, to be kept elsewhere"
    checkpoint = add_command(commands, "checkpoint", summary)
    checkpoint.add_argument(
        "--size", type=_number, default=0, metavar="N", help="that of so many records, instead"
    )
    checkpoint.add_argument(
        "--all", action="store_true", help="list all: size, and who signed and cosigned"
    )
    summary = "write the ledger as static files (C2SP tlog-tiles), or continue what lies there"
    tiles = add_command(commands, "tiles", summary)
    tiles.add_argument(
        "--out", type=Path, required=True, metavar="FOLDER", help="where; made if absent"
    )
    summary = "make the key that signs checkpoints, or print its public part"
    key = add_command(commands, "key", summary)
    keys = key.add_subparsers(dest="key_command", metavar="COMMAND", required=True)
    new = add_command(keys, "new", "make a key; an old file is never replaced")
    new.add_argument("file", type=Path, metavar="FILE", help="to be named by ledger.key")
    show = add_command(keys, "show", "print the public keys of a ledger (vkey), one a line")
    show.add_argument(
        "--file", type=Path, metavar="FILE", help="that of a key file, before it has signed"
    )
    for command in (proving_, checkpoint, tiles, show):
        command.add_argument(
            "folder", type=Path, metavar="DIR", help="state directory, or a copy of its ledger"
        )
        command.add_argument("--json", action="store_true", help="print one JSON object")


def run(arguments: argparse.Namespace) -> int:
    """Run one of them."""
    if arguments.ledger_command == "key" and arguments.key_command == "new":
        return _new_key(arguments.file)
    path = ledger_text.found(arguments.folder)
    if path is None:
        return _USAGE
    act = {"prove": _prove, "checkpoint": _checkpoint, "tiles": _tiles, "key": _show_keys}
    try:
        with reading.opened(path) as ledger:
            return act[arguments.ledger_command](ledger, arguments)
    except ProofError as wrong:
        print(f"edge: {ledger_text.shown(str(wrong))}", file=sys.stderr)
        return 1


def _prove(ledger: Reading, arguments: argparse.Namespace) -> int:
    if arguments.record is not None and arguments.seq is None:
        print("edge: --record needs --seq, the place of that record", file=sys.stderr)
        return _USAGE
    record = _read(arguments.record) if arguments.record else None
    seqs = list(_chosen(ledger, arguments))
    name = str(arguments.part or arguments.frame or f"record-{arguments.seq}")
    if not seqs:
        print(f"edge: {name}: no record here; if it was pruned, ask by --seq", file=sys.stderr)
        return 1
    if len(seqs) > proofs.MAX_PROOFS:
        print(f"edge: {name}: {len(seqs)} records, more than one file holds", file=sys.stderr)
        return 1
    made = [proving.prove(ledger, seq, record) for seq in seqs]
    out = arguments.out or Path(re.sub(r"[^A-Za-z0-9._-]", "_", name).lstrip(".") + proofs.SUFFIX)
    try:
        out.write_bytes(b"".join(proof.encode() for proof in made))
    except OSError as failed:
        raise ProofError(f"{out}: cannot be written: {failed.strerror}") from failed
    _print_made(ledger, out, made, as_json=arguments.json)
    return 0


def _chosen(ledger: Reading, arguments: argparse.Namespace) -> Iterator[int]:
    if arguments.seq is not None:
        yield arguments.seq
        return
    if arguments.part is not None:
        rows = ledger.of_part(arguments.part)
    else:
        rows = ledger.of_frame(arguments.frame)
    for row in rows:
        yield row.seq


def _print_made(ledger: Reading, out: Path, made: list[Proof], *, as_json: bool) -> None:
    vkeys = [vkey for vkey, _ in ledger.signers()]
    bare = [proof.index + 1 for proof in made if proof.record is None]
    if as_json:
        seqs = [proof.index + 1 for proof in made]
        print(_json({"file": str(out), "records": seqs, "without_record": bare, "keys": vkeys}))
        return
    print(f"{out}: {len(made)} record{'s' if len(made) != 1 else ''} proved")
    for seq in bare:
        print(
            f"record {seq} was pruned: its leaf is proved, its bytes are not in the file (whoever "
            "has them lays them beside it: verify-proof --record)"
        )
    for vkey in map(ledger_text.shown, vkeys):
        print(f"check it with: edge ledger verify-proof {out} --key '{vkey}'")


def _checkpoint(ledger: Reading, arguments: argparse.Namespace) -> int:
    if arguments.all:
        listed = [(kept.size, _signers(kept.note)) for kept in ledger.checkpoints()]
        if arguments.json:
            all_ = [{"size": size, "signed_by": signers} for size, signers in listed]
            print(_json({"origin": ledger.log_origin, "checkpoints": all_}))
        else:
            for size, signers in listed:
                print(f"{size:>10}  {', '.join(signers)}")
        return 0
    kept = ledger.checkpoint(arguments.size)
    if kept is None:
        which = f"of {arguments.size} records " if arguments.size else ""
        print(f"edge: no checkpoint {which}here (--all lists those that are)", file=sys.stderr)
        return 1
    checkpoints.read(notes.parse(kept.note))  # else whoever forged the file could say anything here
    if arguments.json:
        print(_json({"size": kept.size, "note": kept.note.decode()}))
    else:
        print(kept.note.decode(), end="")
    return 0


def _signers(note: bytes) -> list[str]:
    return [f"{one.name}+{one.key_id.hex()}" for one in notes.parse(note).signatures]


def _tiles(ledger: Reading, arguments: argparse.Namespace) -> int:
    done = publishing.publish(ledger, arguments.out)
    if arguments.json:
        print(_json(done))
        return 0
    print(
        f"{arguments.out}: {done.size} records of {ledger_text.shown(done.origin)}, "
        f"{done.size - done.since} of them new; {done.files} files written"
    )
    if done.pruned:
        print(f"records up to {done.pruned} were pruned here: their hashes are there, not they")
    for seq in done.too_long:
        print(f"record {seq} is too long for a bundle: its 256 records are there by hash alone")
    return 0


def _show_keys(ledger: Reading, arguments: argparse.Namespace) -> int:
    if arguments.file is not None:
        try:
            key = notes.read_key(arguments.file)
        except ConfigError as wrong:
            raise ProofError(str(wrong)) from wrong
        listed = [(Signer(ledger.log_origin, key).verifier.vkey, ledger.size())]
    else:
        listed = ledger.signers()
    if arguments.json:
        print(_json({"keys": [{"vkey": vkey, "since": since} for vkey, since in listed]}))
    else:
        for vkey, _ in listed:
            print(ledger_text.shown(vkey))
    if not listed:
        print(
            "edge: no checkpoint was signed yet, so no key is listed (--file KEYFILE shows what "
            "a key's vkey will be; the daemon's own lies in storage.path)",
            file=sys.stderr,
        )
    return 0 if listed else 1


def _new_key(path: Path) -> int:
    key = notes.new_key()
    notes.write_key(path, key)
    print(f"{path}: an Ed25519 private key, readable by its owner alone")
    print(f"public key, hex: {key.public_key().public_bytes_raw().hex()}")
    print("A ledger's vkey names the ledger, too: edge ledger key show DIR --file " + str(path))
    return 0


def _json(document: object) -> str:
    return msgspec.json.encode(document).decode()


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_MAX_RECORD_BYTES)
    except OSError as failed:
        raise ProofError(f"{path}: cannot be read: {failed.strerror}") from failed


def _number(text: str) -> int:
    if not re.fullmatch(r"[1-9][0-9]{0,17}", text):
        raise argparse.ArgumentTypeError("expected a number from 1")
    return int(text)
