"""A real PostgreSQL server of the tests' own, where Debian's package is installed."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


def _programs() -> Path | None:
    """The folder of the newest installed server's programs."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if found:
        return found[-1].parent
    on_path = shutil.which("initdb")
    return Path(on_path).parent if on_path else None


@contextmanager
def running_postgres() -> Iterator[str]:
    """A server on a Unix socket; yields the URL of an empty database. Skips where there is none."""
    programs = _programs()
    if programs is None:
        pytest.skip("PostgreSQL is not installed (`make test-postgres` installs it)")
    # It refuses to run as root, and then needs a folder that its user can reach.
    as_user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
    folder = Path(tempfile.mkdtemp(prefix="edge-postgres-"))
    try:
        if as_user:
            shutil.chown(folder, "postgres")
        data = folder / "data"

        def run(program: str, *words: str | Path, check: bool = True) -> None:
            subprocess.run(
                [*as_user, programs / program, "-D", data, *words],
                check=check,
                stdout=subprocess.DEVNULL,
                cwd=folder,
            )

        run("initdb", "-A", "trust", "-U", "edge")
        options = f"-k {folder} -c listen_addresses= -c max_connections=20"
        run("pg_ctl", "-w", "-o", options, "-l", folder / "log", "start")
        try:
            yield f"postgresql://edge@/postgres?host={folder}"
        finally:
            # A test may have killed it.
            run("pg_ctl", "-w", "-t", "5", "-m", "immediate", "stop", check=False)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
