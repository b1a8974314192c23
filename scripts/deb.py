"""The Debian packages: `python scripts/deb.py [--arch arm64] [--out dist]`.

One recipe for both architectures, because nothing of the target runs here: the wheels of the lock
are laid out with their hashes checked, and the virtual environment around them is written, not
made. Its interpreter is Debian's own Python, so security updates of Python reach it; therefore the
package depends on exactly the minor version that the wheels are for.

Reproducible: the same sources, lock and SOURCE_DATE_EPOCH (default: the last commit's time) give
the same bytes. Byte code is compiled here, `unchecked-hash`, because the service may not write
beside the sources; it holds no times and no path of this machine.

The package fetches nothing when it is installed. It makes no user: the unit's DynamicUser does.
"""

import argparse
import compileall
import os
import py_compile
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from typing import Final

from runtime_lock import PYTHON, ROOT, runtime_lock
from sbom import sbom

from edge import __version__
from edge.ledger.schema import SCHEMA_VERSION

PACKAGE: Final = "edge-verdict"
MACHINES: Final = {"amd64": "x86_64", "arm64": "aarch64"}
MAINTAINER: Final = "edge maintainers <edge@localhost.invalid>"
_PREFIX: Final = Path("opt/edge")
_UNITS: Final = Path("usr/lib/systemd/system")
_SECRETS: Final = Path("etc/credstore")
_NEXT_PYTHON: Final = "3.12"
_GLIBC: Final = "2_28"
_NOT_RUN: Final = (
    # Tests of others, and what theirs read.
    *("**/tests", "**/test_data", "**/testdata"),
    # For type checkers and compilers.
    *("**/*.pyi", "**/*.pxd", "**/*.pyx", "**/*.h", "**/*.c", "**/*.a"),
    # They want the package onnx, which is not there.
    *(f"onnxruntime/{name}" for name in ("quantization", "tools", "transformers")),
)
"""Below each package but our own, which carries the sources of guests."""
_ENTRY: Final = """#!/opt/edge/bin/python -I
import sys

from edge.cli.main import main

sys.exit(main())
"""
_CONFIG_NOTE: Final = (
    "# This box. `edge check` reads it as the daemon will; then `systemctl restart edge`.\n"
)


@dataclass(frozen=True)
class Tree:
    """A package's files before they are packed.

    Attributes:
        root: What becomes `/`.
        machine: As the kernel names it.
    """

    root: Path
    machine: str

    @property
    def site(self) -> Path:
        """Where Python looks for packages."""
        return self.root / _PREFIX / "lib" / f"python{PYTHON}" / "site-packages"


def build(arch: str, out: Path, epoch: int, suffix: str = "", level: int = 9) -> Path:
    """Build one package.

    Args:
        arch: `amd64` or `arm64`.
        out: The folder that it is written to.
        epoch: No file in it is younger; seconds since 1970.
        suffix: Added to the version, for tests of upgrades.
        level: Of zstd, 1 to 19.

    Returns:
        The package.
    """
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="edge-deb-") as folder:
        os.environ["SOURCE_DATE_EPOCH"] = str(epoch)
        tree = Tree(Path(folder) / "tree", MACHINES[arch])
        _lay_out_python(tree, Path(folder))
        _lay_out_system(tree)
        _compile(tree)
        found = _version() + suffix
        _write_control(tree, arch, found)
        _settle_modes(tree.root)
        package = out / f"{PACKAGE}_{found}_{arch}.deb"
        command = ["dpkg-deb", "--root-owner-group", "-Zzstd", f"-z{level}", "--threads-max=1"]
        subprocess.run(
            [*command, "--build", str(tree.root), str(package)],
            check=True,
            stdout=subprocess.DEVNULL,
        )
    return package


def build_wheel(folder: Path) -> Path:
    """Build our own wheel, by the backend that is installed here."""
    subprocess.run(
        [
            sys.executable,
            "-m",
            "hatchling",
            "build",
            "--target",
            "wheel",
            "--directory",
            str(folder),
        ],
        check=True,
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    (wheel,) = folder.glob("*.whl")
    return wheel


def _lay_out_python(tree: Tree, folder: Path) -> None:
    lock = folder / "runtime.lock"
    lock.write_text(runtime_lock((ROOT / "requirements.lock").read_text(), tree.machine))
    wheel = build_wheel(folder / "wheel")
    uv = [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--link-mode", "copy"]
    uv += ["--no-deps", "--only-binary", ":all:", "--target", str(tree.site)]
    uv += ["--python-version", PYTHON, "--python-platform", f"{tree.machine}-manylinux_{_GLIBC}"]
    subprocess.run([*uv, "--require-hashes", "-r", str(lock)], check=True)
    subprocess.run([*uv, str(wheel)], check=True)
    shutil.rmtree(tree.site / "bin", ignore_errors=True)  # programs of others, for this machine
    (tree.site / ".lock").unlink(missing_ok=True)
    for record in tree.site.glob("*.dist-info"):
        # Where and how it was installed: paths of this machine, and programs that are not here.
        for name in ("RECORD", "direct_url.json", "uv_cache.json", "REQUESTED"):
            (record / name).unlink(missing_ok=True)
    _leave_out(tree.site)
    home = tree.root / _PREFIX
    (home / "bin").mkdir()
    for name in ("python", "python3", f"python{PYTHON}"):
        (home / "bin" / name).symlink_to(f"/usr/bin/python{PYTHON}")
    (home / "bin" / "edge").write_text(_ENTRY)
    (home / "pyvenv.cfg").write_text(
        f"home = /usr/bin\ninclude-system-site-packages = false\nversion = {PYTHON}\n"
    )
    demo = f"lib/python{PYTHON}/site-packages/edge/shipped/models/pcb/deployment"
    (home / "demo-deployment").symlink_to(demo)
    (home / "runtime.lock").write_text(lock.read_text())
    (home / "state-format").write_text(f"{SCHEMA_VERSION}\n")


def _leave_out(site: Path) -> None:
    """Remove what nothing on a device reads (`_NOT_RUN`)."""
    for path in [path for pattern in _NOT_RUN for path in site.glob(pattern)]:
        if path.is_relative_to(site / "edge"):
            continue
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)  # it may have gone with its folder


def _lay_out_system(tree: Tree) -> None:
    root = tree.root
    (root / "usr/bin").mkdir(parents=True)
    (root / "usr/bin/edge").symlink_to("/opt/edge/bin/edge")
    (root / _UNITS).mkdir(parents=True)
    for unit in sorted((ROOT / "systemd").glob("edge*.service")):
        shutil.copyfile(unit, root / _UNITS / unit.name)
    for slice_ in sorted((ROOT / "systemd").glob("*.slice")):
        shutil.copyfile(slice_, root / _UNITS / slice_.name)
    examples = root / "usr/share/doc" / PACKAGE / "examples"
    examples.mkdir(parents=True)
    none_compiled = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "docs" / "examples", examples, dirs_exist_ok=True, ignore=none_compiled)
    shutil.copytree(ROOT / "monitoring", examples / "monitoring")
    shutil.copyfile(ROOT / "systemd" / "edge.acl", examples / "edge.acl")
    shutil.copytree(ROOT / "device_configs", examples / "device_configs")
    shutil.copytree(ROOT / "systemd" / "edge.service.d", examples / "edge.service.d")
    shutil.copyfile(ROOT / "LICENSE", examples.parent / "copyright")
    _lay_out_pages(examples.parent)
    bill = sbom((ROOT / "requirements.lock").read_text(), tree.machine, tree.site)
    (examples.parent / "edge.cdx.json").write_text(bill)
    config = root / "etc/edge/edge.toml"
    config.parent.mkdir(parents=True)
    config.write_text(_CONFIG_NOTE + _config_of(tree.machine))
    (root / _SECRETS).mkdir()
    broker = root / "etc/mosquitto/conf.d/edge.conf"
    broker.parent.mkdir(parents=True)
    shutil.copyfile(ROOT / "systemd" / "mosquitto-edge.conf", broker)


def _lay_out_pages(folder: Path) -> None:
    """Copy the pages that errors and configs name; a gateway has no internet to read them in."""
    none_twice = shutil.ignore_patterns("examples", "__pycache__")
    shutil.copytree(ROOT / "docs", folder / "docs", ignore=none_twice)
    (folder / "docs" / "examples").symlink_to("../examples")
    guests = (ROOT / "guests").glob("*.md"), (ROOT / "guests").glob("*/README.md")
    for page in (ROOT / "README.md", ROOT / "CHANGELOG.md", *chain(*guests)):
        target = folder / page.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(page, target)


def _config_of(machine: str) -> str:
    name = "x86-cpu" if machine == "x86_64" else "raspberry-pi-5"
    return (ROOT / "device_configs" / f"{name}.toml").read_text()


def _compile(tree: Tree) -> None:
    """Compile to byte code; some packages carry files of other Pythons, which do not compile."""
    if sys.version_info[:2] != tuple(int(part) for part in PYTHON.split(".")):
        raise SystemExit(f"the packages are built by Python {PYTHON}, whose byte code they hold")
    compileall.compile_dir(
        tree.site,
        quiet=2,
        stripdir=str(tree.root),
        prependdir="/",
        maxlevels=50,
        invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
    )


def _write_control(tree: Tree, arch: str, found: str) -> None:
    control = tree.root / "DEBIAN"
    control.mkdir()
    size_kib = sum(p.lstat().st_size for p in tree.root.rglob("*") if p.is_file()) >> 10
    (control / "control").write_text(
        f"Package: {PACKAGE}\n"
        f"Version: {found}\n"
        f"Architecture: {arch}\n"
        f"Maintainer: {MAINTAINER}\n"
        f"Installed-Size: {size_kib}\n"
        f"Depends: python3 (>= {PYTHON}), python3 (<< {_NEXT_PYTHON}), libc6 (>= 2.28), libgomp1,"
        " libstdc++6\n"
        "Recommends: mosquitto\n"
        "Section: misc\n"
        "Priority: optional\n"
        "Description: edge-device inference: camera frames in over MQTT, verdicts out in time\n"
        " A daemon that runs an ONNX model between sandboxed WebAssembly guests and answers\n"
        " every frame of a line with one verdict. With its own Python packages below /opt/edge;\n"
        f" numpy {version('numpy')} and onnxruntime {version('onnxruntime')} among them.\n"
    )
    etc = sorted(p.relative_to(tree.root) for p in (tree.root / "etc").rglob("*") if p.is_file())
    (control / "conffiles").write_text("".join(f"/{path}\n" for path in etc))
    for script in sorted((ROOT / "packaging" / "debian").iterdir()):
        text = script.read_text().replace("@STATE_FORMAT@", str(SCHEMA_VERSION))
        (control / script.name).write_text(text)
        (control / script.name).chmod(0o755)


def _settle_modes(root: Path) -> None:
    """Modes that do not depend on this user's umask."""
    for path in [root, *root.rglob("*")]:
        if path.is_symlink():
            continue
        program = path.parent in (root / "DEBIAN", root / _PREFIX / "bin") and path.suffix == ""
        script = program and path.name not in ("control", "conffiles")
        path.chmod(0o755 if path.is_dir() or script else 0o644)
    (root / _SECRETS).chmod(0o700)


def _version() -> str:
    """Ours, in Debian's order: a pre-release comes before its release."""
    return re.sub(r"(a|b|rc|\.dev)(\d+)$", r"~\1\2", __version__)


def _last_commit() -> int:
    given = os.environ.get("SOURCE_DATE_EPOCH", "")
    if given.isdecimal():
        return int(given)
    done = subprocess.run(
        ["git", "log", "-1", "--format=%ct"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return int(done.stdout)


def main(arguments: list[str]) -> int:
    """Build what is asked for, and name it."""
    parser = argparse.ArgumentParser(description="Build the Debian package of edge.")
    parser.add_argument("--arch", choices=tuple(MACHINES), default="amd64")
    parser.add_argument("--out", type=Path, default=ROOT / "dist")
    parser.add_argument("--version-suffix", default="", help="for tests of upgrades: +1")
    parser.add_argument("--level", type=int, default=9, help="of zstd; 1 is quick")
    parser.add_argument("--print-version", action="store_true", help="and build nothing")
    parsed = parser.parse_args(arguments)
    if parsed.print_version:
        print(_version() + parsed.version_suffix)
        return 0
    package = build(parsed.arch, parsed.out, _last_commit(), parsed.version_suffix, parsed.level)
    print(f"{package} ({package.stat().st_size >> 20} MiB)")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
