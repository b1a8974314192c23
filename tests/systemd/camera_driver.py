"""Cameras as services on the test gateway, told from inside: run as root under systemd as PID 1.

Standard library alone, by the gateway's own Python; as `driver.py`, whose tools it takes.
"""

import base64
import contextlib
import http.server
import os
import re
import signal
import sys
import threading
import time
from pathlib import Path

from driver import STEPS, main, records, sh, show, stands, step, until

UNIT = "edge-camera@top"
EXAMPLES = Path("/usr/share/doc/edge-verdict/examples")
BESIDE = Path(f"/etc/systemd/system/{UNIT}.service.d")
BRIDGE = "genicam_bridge.py"
PASSWORD = "battery-staple"
# Small pictures, that a busy machine receives whole, too.
WORDS = '--camera 127.0.0.1 --rate 5 --format Mono8 --features "Width=256 Height=256"'
FAKE = Path("/usr/local/lib/fake_camera.py")
FAKE_CODE = """
import gi
gi.require_version("Aravis", "0.8")
from gi.repository import Aravis, GLib
camera = Aravis.GvFakeCamera.new("127.0.0.1", "GV01")
GLib.MainLoop().run()
"""
STEPS.clear()


def bridged(*lines: str) -> None:
    """Have the unit run the bridge, as the shipped drop-in does; `lines` come after it."""
    text = (EXAMPLES / "edge-camera@.service.d" / "genicam.conf").read_text()
    BESIDE.mkdir(parents=True, exist_ok=True)
    text = text.replace("--camera 192.168.1.30", WORDS)
    (BESIDE / "genicam.conf").write_text(text + "\n".join(lines) + "\n")
    sh("systemctl daemon-reload", quiet=True)


def bridge() -> int:
    """The bridge's process."""
    for each in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            program, _, rest = each.read_bytes().partition(b"\0")
            if program.endswith(b"python3") and BRIDGE.encode() in rest:
                return int(each.parent.name)
    raise AssertionError(f"no {BRIDGE} runs")


def said_since(mark: str) -> str:
    """What the unit wrote to the journal."""
    return sh(f"journalctl -u {UNIT} -o cat --no-pager --since '{mark}'", quiet=True)


def now() -> str:
    return sh("date '+%Y-%m-%d %H:%M:%S'", quiet=True).strip()


@step
def the_package_runs() -> str:
    Path("/etc/apt/apt.conf.d/50yes").write_text('APT::Get::Assume-Yes "true";\n')
    sh("apt-get install ./edge-verdict_*.deb")
    until(stands, "edge is active")
    sh(f"install -m 644 {EXAMPLES}/edge-camera@.service /etc/systemd/system/")
    FAKE.write_text(FAKE_CODE)
    sh(f"systemd-run --quiet --unit=fake-camera /usr/bin/python3 {FAKE}")
    return "with a camera of Aravis' own"


@step
def a_genicam_bridge_sends_frames_under_the_units_confinement() -> str:
    bridged()
    before = records()
    sh(f"systemctl start {UNIT}")
    took_s = until(lambda: records() >= before + 5, "its frames are judged")
    status = Path(f"/proc/{bridge()}/status").read_text()
    assert re.search(r"^NoNewPrivs:\t1$", status, re.MULTILINE), status
    assert re.search(r"^Seccomp:\t2$", status, re.MULTILINE), status
    assert re.search(r"^CapBnd:\t0+$", status, re.MULTILINE), status
    return f"five verdicts after {took_s:.1f} s"


@step
def a_bridge_that_is_killed_is_back_with_its_pipe() -> str:
    before, restarts = records(), int(show("NRestarts", UNIT))
    os.kill(bridge(), signal.SIGKILL)
    until(lambda: int(show("NRestarts", UNIT)) > restarts, "started again")
    until(lambda: records() >= before + 5, "its frames are judged")
    return f"{int(show('NRestarts', UNIT)) - restarts} restarts"


@step
def without_the_drop_ins_grant_it_reaches_no_camera() -> str:
    sh(f"systemctl stop {UNIT}")
    bridged("RestrictAddressFamilies=~AF_NETLINK")
    mark, restarts = now(), int(show("NRestarts", UNIT))
    sh(f"systemctl start {UNIT}")
    until(lambda: "Can't connect to device" in said_since(mark), "the bridge says so")
    until(lambda: int(show("NRestarts", UNIT)) > restarts, "tried again")
    sh(f"systemctl stop {UNIT}")
    return "Can't connect to device"


@step
def packet_sockets_are_had_by_the_lines_that_stand_there_for_them() -> str:
    text = (EXAMPLES / "edge-camera@.service.d" / "genicam.conf").read_text()
    lines = [line[1:] for line in text.splitlines() if re.match(r"#[A-Z]\w+=", line)]
    assert len(lines) == 4, text
    bridged(*lines)
    before = records()
    sh(f"systemctl start {UNIT}")
    until(lambda: records() >= before + 5, "its frames are judged")
    held = sh("cat /proc/net/packet", quiet=True).splitlines()[1:]
    assert held, "no packet socket"
    sh(f"systemctl stop {UNIT}")
    (BESIDE / "genicam.conf").unlink()
    sh("systemctl daemon-reload", quiet=True)
    return "one packet socket"


class Mjpeg(http.server.BaseHTTPRequestHandler):
    """A camera that asks for a password, and sends one picture again and again."""

    picture = b""

    def do_GET(self) -> None:
        """Send parts until the other end has gone."""
        wanted = base64.b64encode(f"viewer:{PASSWORD}".encode()).decode()
        if self.headers.get("authorization") != f"Basic {wanted}":
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="camera"')
            self.end_headers()
            return
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        self.end_headers()
        head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(self.picture)}\r\n\r\n"
        while True:
            self.wfile.write(head.encode() + self.picture + b"\r\n")
            time.sleep(0.2)  # five pictures a second

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@step
def an_http_camera_with_a_password_sends_frames_by_the_unit_as_shipped() -> str:
    code = (
        "import sys; from edge.linesim import Board, encode_jpeg, render_part; "
        "sys.stdout.buffer.write(encode_jpeg(render_part(Board(3), 0).image))"
    )
    sh(f"/opt/edge/bin/python -I -c '{code}' >/out/picture.jpg")
    Mjpeg.picture = Path("/out/picture.jpg").read_bytes()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Mjpeg)
    server.handle_error = lambda *_: None  # type: ignore[method-assign] # viewers go as they like
    threading.Thread(target=server.serve_forever, daemon=True).start()
    store = Path("/etc/credstore/edge.camera-top")
    store.write_text(f"http://viewer:{PASSWORD}@127.0.0.1:{server.server_port}/\n")
    store.chmod(0o600)
    before, mark = records(), now()
    sh(f"systemctl start {UNIT}")
    until(lambda: records() >= before + 5, "its frames are judged")
    assert PASSWORD not in said_since(mark)
    pid = show("MainPID", UNIT)
    assert PASSWORD.encode() not in Path(f"/proc/{pid}/cmdline").read_bytes()
    sh(f"systemctl stop {UNIT}")
    return "the password in no argument and not in the journal"


@step
def without_its_credential_the_unit_ends_and_is_left_ended() -> str:
    Path("/etc/credstore/edge.camera-top").unlink()
    sh(f"systemctl start {UNIT}", may_fail=True)
    until(lambda: show("ActiveState", UNIT) == "failed", "it has ended")
    assert show("ExecMainStatus", UNIT) == "78"
    return "status 78"


if __name__ == "__main__":
    sys.exit(main())
