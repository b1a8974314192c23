"""What happens on the test gateway, told from inside: run as root under systemd as PID 1.

Standard library alone, by the gateway's own Python. Each step is a claim; /out/results.json gets
how each ended, /out/transcript.txt every command with what it said. Steps build on each other, in
the order of a gateway's life; one that fails does not keep the later ones from being tried.
"""

import contextlib
import json
import os
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

OUT = Path("/out")
CONFIG = Path("/etc/edge/edge.toml")
DROP_IN = Path("/run/systemd/system/edge.service.d/bed.conf")
STATE = Path("/var/lib/private/edge")
DEADLINE_S = 60.0
SECRET = "correct-horse-battery"
PAGE = OUT / "install.md"
STEPS: list[Callable[[], str]] = []
SHORT = "--short" in sys.argv
"""Only the steps that a change is most likely to break: for CI."""
_transcript = (OUT / "transcript.txt").open("w")


def step(claim: Callable[[], str]) -> Callable[[], str]:
    """Take a claim into the sequence; what it returns is told beside its result."""
    STEPS.append(claim)
    return claim


def long_step(claim: Callable[[], str]) -> Callable[[], str]:
    """Take a claim into the long sequence alone."""
    return claim if SHORT else step(claim)


def sh(command: str, *, may_fail: bool = False, quiet: bool = False) -> str:
    """Run a command as an operator would, and keep both sides of it."""
    done = subprocess.run(
        command,
        shell=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=180,
        check=False,
        cwd=OUT,
        env={
            **os.environ,
            "COLUMNS": "120",
            "SYSTEMD_COLORS": "0",
            "DEBIAN_FRONTEND": "noninteractive",
        },
    )
    if not quiet:
        _transcript.write(
            f"# {command}\n{done.stdout}{f'[{done.returncode}]' if done.returncode else ''}\n"
        )
        _transcript.flush()
    if done.returncode and not may_fail:
        raise AssertionError(f"{command}: status {done.returncode}: {done.stdout[-1500:]}")
    return done.stdout


def show(name: str, unit: str = "edge") -> str:
    """One property of a unit."""
    return sh(f"systemctl show --value -p {name} {unit}", quiet=True).strip()


def until(claim: Callable[[], object], what: str, deadline_s: float = DEADLINE_S) -> float:
    """Wait until a claim holds, and return how many seconds it took."""
    began = time.monotonic()
    while not claim():
        if time.monotonic() - began > deadline_s:
            raise AssertionError(
                f"not in {deadline_s:g} s: {what}\n"
                + sh("systemctl status --no-pager -n 15 edge", may_fail=True)
            )
        time.sleep(0.05)  # between two looks, until the deadline
    return time.monotonic() - began


def stands() -> bool:
    """Whether edge has said READY and systemd holds it for active."""
    return show("ActiveState") == "active"


def journal(*matches: str) -> list[dict[str, Any]]:
    """Entries of the journal, of edge."""
    text = sh(f"journalctl -u edge -o json --no-pager {' '.join(matches)}", quiet=True)
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


def events(event: str) -> list[dict[str, Any]]:
    """Our own log lines of one event, over all runs of the daemon."""
    found = []
    for entry in journal():
        with contextlib.suppress(ValueError, TypeError):
            line = json.loads(entry["MESSAGE"])
            if line.get("event") == event:
                found.append(line)
    return found


def drop_in(*lines: str) -> None:
    """Change the service for a while; nothing: as it was."""
    if lines:
        DROP_IN.parent.mkdir(parents=True, exist_ok=True)
        DROP_IN.write_text("[Service]\n" + "\n".join(lines) + "\n")
    else:
        DROP_IN.unlink(missing_ok=True)
    sh("systemctl daemon-reload", quiet=True)


def main_pid() -> int:
    """The supervisor's process."""
    return int(show("MainPID"))


def workers() -> list[int]:
    """The supervisor's children."""
    found = sh(f"pgrep -P {main_pid()} -f edge.worker", may_fail=True, quiet=True)
    return [int(pid) for pid in found.split()]


def replay(frames: int, rate: int = 10) -> dict[str, Any]:
    """Play boards to the daemon through the broker, and score the verdicts."""
    said = sh(
        f"edge replay --config {CONFIG} --frames {frames} --rate {rate} --json", may_fail=True
    )
    line = next(line for line in reversed(said.splitlines()) if line.startswith("{"))
    found: dict[str, Any] = json.loads(line)
    return found


def records() -> int:
    """How many verdicts the ledger holds."""
    said = sh(f"edge ledger verify {STATE}/ledger --json", may_fail=True)
    found = re.search(r'"records":\s*(\d+)', said)
    if found is None:
        raise AssertionError(f"no number of records in: {said[-800:]}")
    return int(found[1])


def page(section: str, block: int = 0) -> list[str]:
    """The commands of one shell block of docs/install.md, as they stand there."""
    text = PAGE.read_text().partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    blocks = re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return [line.partition("  #")[0].strip() for line in blocks[block].splitlines() if line.strip()]


@step
def one_command_installs_and_starts_the_demo() -> str:
    # Yes is what a person would type; there is no network, and apt's cache has what it may need.
    Path("/etc/apt/apt.conf.d/50yes").write_text('APT::Get::Assume-Yes "true";\n')
    assert not Path("/usr/sbin/mosquitto").exists()
    (command,) = page("The package")
    sh(command)
    assert Path("/usr/sbin/mosquitto").exists(), "the broker was to come along"
    took_s = until(stands, "edge is active")
    until(lambda: events("ready"), "the journal says ready")
    sh("systemctl status --no-pager -n 0 edge")
    assert sh("readlink /etc/edge/deployment").strip() == "/opt/edge/demo-deployment"
    return f"READY {took_s:.1f} s after the installation"


@step
def every_command_of_the_page_does_what_it_says() -> str:
    replayed, status, doctor, ready = page("The package", 1)
    for _ in range(3):  # its budget is the line's own, and a busy machine is late for some
        said = sh(replayed, may_fail=True)
        if "none: one verdict for each frame, in time" in said:
            break
    assert "40, answered 40" in said, said
    assert "none: one verdict for each frame, in time" in said, said
    assert "box1  ready" in sh(status)
    # "could not be checked" is no finding; a virtual machine has no thermometer.
    assert ", 0 findings," in sh(doctor)
    assert '"event": "ready"' in sh(ready)
    check, restart = page("Configure a line")
    said = sh(check)
    assert "sound; device box1" in said, said
    before = main_pid()
    sh(restart)
    until(lambda: main_pid() not in (0, before) and stands(), "READY again")
    return "the page's commands, verbatim"


@long_step
def boards_from_outside_get_verdicts() -> str:
    score = replay(40)
    assert score["answered"] == 40, score
    sh(f"edge status --config {CONFIG}")
    return f"40 of 40 answered, p99 {score['latency_ms']['p99']} ms"


@step
def it_is_a_user_that_exists_while_it_runs() -> str:
    uid = Path(f"/proc/{main_pid()}").stat().st_uid
    assert 61184 <= uid <= 65519, uid
    assert Path("/var/lib/edge").resolve() == STATE
    assert (STATE.stat().st_uid, STATE.stat().st_mode & 0o777) == (uid, 0o700)
    assert show("DynamicUser") == "yes"
    return f"uid {uid}"


@long_step
def the_doctor_finds_the_unit_in_order() -> str:
    said = json.loads(sh(f"edge doctor --config {CONFIG} --json", may_fail=True))
    checks = {check["name"]: check for check in said["checks"]}
    assert checks["unit.hardening"]["outcome"] == "ok", checks["unit.hardening"]
    assert checks["broker.reachable"]["outcome"] == "ok", checks["broker.reachable"]
    sh(f"edge doctor --config {CONFIG}", may_fail=True)
    return str(checks["unit.hardening"]["said"])


@step
def the_journal_has_fields_to_search_by() -> str:
    ready = journal("EDGE_EVENT=ready")
    assert ready, "no entry has EDGE_EVENT=ready"
    assert ready[-1]["PRIORITY"] == "6"
    assert ready[-1]["EDGE_ROOM"] == "edge.daemon"
    assert ready[-1]["_SYSTEMD_UNIT"] == "edge.service"
    sh("journalctl -u edge --no-pager -n 3 -o cat EDGE_EVENT=ready")
    return f"{len(ready)} entries by EDGE_EVENT=ready"


def ask(path: str, token: str = "", document: object = None) -> tuple[int, Any]:
    """Ask the operator's page."""
    headers = {"x-edge-console": "1", "content-type": "application/json"}
    if token:
        headers["authorization"] = f"Bearer {token}"
    body = None if document is None else json.dumps(document).encode()
    request = urllib.request.Request(f"http://127.0.0.1:8680{path}", body, headers)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as refused:
        return refused.code, None
    except OSError:
        return 0, None


@step
def the_page_looks_on_as_the_daemons_user_and_can_alter_nothing() -> str:
    assert show("ActiveState", "edge-console") == "inactive", "off until it is enabled"
    sh("systemctl start edge-console", may_fail=True)
    until(lambda: show("ActiveState", "edge-console") == "failed", "it wants a token")
    assert show("ExecMainStatus", "edge-console") == "78"
    token = "a secret of this gateway"
    Path("/etc/credstore/edge.console-token").write_text(token)
    Path("/etc/credstore/edge.console-token").chmod(0o600)
    sh("systemctl enable --now edge-console")
    until(lambda: ask("/api/live")[0] == 401, "it asks who comes")
    until(lambda: (ask("/api/live", token)[1] or {}).get("status"), "it hears the daemon")
    lines = ask("/api/records?kind=reject", token)[1]["lines"]
    assert lines, "boards were played"
    seq = lines[0]["seq"]
    pid = int(show("MainPID", "edge-console"))
    assert Path(f"/proc/{pid}").stat().st_uid == Path(f"/proc/{main_pid()}").stat().st_uid
    word = {"seq": seq, "verdict": "pass", "by": "quality", "reason": "a reflex"}
    assert ask("/api/override", token, word)[0] == 200
    (said,) = ask(f"/api/records/{seq}", token)[1]["words"]
    assert said["via"].startswith(f"uid {Path(f'/proc/{pid}').stat().st_uid}"), said
    inside = f"nsenter -t {pid} -m --"
    wrote = sh(f"{inside} touch /run/edge-console/ledger/x", may_fail=True)
    assert "Read-only file system" in wrote, wrote
    assert (STATE / "ledger.key").stat().st_size > 0
    assert sh(f"{inside} ls -A /run/edge-console").split() == ["ledger", "words"]
    assert not sh(f"{inside} ls -A /run/credentials/edge.service 2>/dev/null", may_fail=True)
    assert token not in sh("journalctl -b --no-pager", quiet=True)
    assert token.encode() not in Path(f"/proc/{pid}/cmdline").read_bytes()
    return sh("systemd-analyze security --no-pager edge-console | tail -1", quiet=True).strip()


def reached_from_the_page(*more: str) -> dict[str, str]:
    """What a program under the page's own unit has from each socket of the daemon that it finds."""
    PROBE.write_text(PROBE_CODE)
    changed = Path("/run/systemd/system/edge-console.service.d/bed.conf")
    changed.parent.mkdir(parents=True, exist_ok=True)
    lines = ("[Service]", f"ExecStartPost=/opt/edge/bin/python {PROBE}", *more)
    changed.write_text("\n".join(lines) + "\n")
    sh("systemctl daemon-reload", quiet=True)
    sh("systemctl restart edge-console")
    said = sh("journalctl -u edge-console -o cat --no-pager | grep ^PROBE | tail -1", quiet=True)
    changed.unlink()
    sh("systemctl daemon-reload", quiet=True)
    PROBE.unlink()
    _transcript.write(said)
    found: dict[str, str] = json.loads(said.removeprefix("PROBE"))
    return found


PROBE = Path("/usr/local/lib/probe.py")
PROBE_CODE = r"""
import glob, json, socket
found = {}
roots = ["", *glob.glob("/proc/[0-9]*/root"), *glob.glob("/proc/[0-9]*/cwd")]
below = ["/run/edge-console", "/run/whole", "/var/lib/edge", "/var/lib/private/edge", ""]
for name in ("words/words.sock", "control.sock"):
    for root in roots:
        for folder in below:
            with socket.socket(socket.AF_UNIX) as asked:
                try:
                    asked.connect(f"{root}{folder}/{name}")
                except OSError:
                    continue
                asked.sendall(b'{"type":"deployments","act":"pin"}' + bytes([10]))
                found[name] = json.loads(asked.makefile().readline())["refusal"]
print("PROBE", json.dumps(found), flush=True)
"""


@step
def who_takes_over_the_page_can_ask_nothing_about_deployments() -> str:
    found = reached_from_the_page()
    assert list(found) == ["words/words.sock"], found
    assert "words.sock takes" in found["words/words.sock"], found
    # Control: the same program, with the whole state shown to it, as it once was.
    found = reached_from_the_page("BindReadOnlyPaths=/var/lib/private/edge:/run/whole")
    assert "a local folder runs here" in found["control.sock"], found
    sh("systemctl restart edge-console")
    return "one socket, which takes words alone"


@step
def a_killed_daemon_is_started_again_after_a_second() -> str:
    before, restarts = main_pid(), int(show("NRestarts"))
    assert show("RestartUSec") == "1s"  # what comes on top is the machine's
    sh(f"kill -9 {before}")
    back_s = until(lambda: main_pid() not in (0, before), "another process")
    ready_s = back_s + until(stands, "READY again")
    assert int(show("NRestarts")) == restarts + 1
    return f"process after {back_s:.1f} s, READY after {ready_s:.1f} s"


@long_step
def a_hung_daemon_is_killed_by_the_watchdog() -> str:
    drop_in("WatchdogSec=4s")
    sh("systemctl restart edge")
    until(stands, "READY with a short watchdog")
    before = main_pid()
    sh(f"kill -STOP {before}")
    took_s = until(lambda: main_pid() not in (0, before), "another process")
    said = sh("journalctl -u edge --no-pager -n 30", quiet=True)
    assert "Watchdog timeout" in said, said
    until(stands, "READY again")
    return f"replaced {took_s:.1f} s after it hung, at WatchdogSec=4s"


@step
def a_wrong_configuration_is_said_and_not_restarted() -> str:
    drop_in()
    good = CONFIG.read_text()
    CONFIG.write_text(good.replace("[storage]", "[storaje]"))
    sh("systemctl restart edge", may_fail=True)
    until(lambda: show("ActiveState") == "failed", "failed")
    assert show("ExecMainStatus") == "78"
    pid = show("MainPID")
    time.sleep(2.5)  # more than RestartSec: a restart would have come
    assert (show("ActiveState"), show("MainPID")) == ("failed", pid)
    said = sh("journalctl -u edge --no-pager -o cat -n 8")
    assert "storaje" in said, said
    assert "did you mean 'storage'" in said, said
    CONFIG.write_text(good)
    sh("systemctl start edge")
    until(stands, "READY with the mended file")
    return "status 78; the journal names the key"


@long_step
def a_crash_loop_is_never_given_up() -> str:
    drop_in("ExecStart=", "ExecStart=/bin/false", "RestartSec=200ms")
    sh("systemctl restart edge", may_fail=True)
    until(lambda: int(show("NRestarts")) >= 8, "eight restarts")  # systemd's default gives up at 5
    drop_in()
    took_s = until(stands, "READY by itself, once the cause is gone")
    return f"8 restarts, then READY {took_s:.1f} s after the repair, untouched"


@step
def stopping_drains() -> str:
    playing = subprocess.Popen(
        [
            "/usr/bin/edge",
            "replay",
            "--config",
            str(CONFIG),
            "--frames",
            "200",
            "--rate",
            "20",
            "--json",
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    heard = records()
    until(lambda: records() > heard + 20, "frames are on the way")
    sh("systemctl stop edge")
    assert (show("Result"), show("ExecMainStatus")) == ("success", "0")
    drained = events("drained")[-1]
    assert drained["unanswered"] == 0, drained
    playing.kill()
    playing.wait()
    sh("systemctl start edge")
    until(stands, "READY")
    return f"drained in {drained['drain_ms']} ms, nothing unanswered"


@long_step
def a_worker_out_of_memory_dies_alone() -> str:
    lost = len(events("worker_lost"))
    drop_in("MemoryMax=64M", "MemorySwapMax=0")
    sh("systemctl restart --no-block edge")
    with contextlib.suppress(AssertionError):
        until(lambda: len(events("worker_lost")) >= lost + 2, "workers are lost", 40)
    before, restarts = main_pid(), show("NRestarts")
    killed = events("worker_lost")[lost:]
    if not killed:
        drop_in()
        sh("systemctl restart edge")
        return "SKIP this kernel did not hold MemoryMax="
    sh("systemctl set-property --runtime edge MemoryMax=2G")
    until(stands, "READY once there is memory")
    assert (main_pid(), show("NRestarts")) == (before, restarts), "the supervisor was to stay"
    sh("systemctl revert edge", may_fail=True)
    drop_in()
    return (
        f"{len(killed)} workers killed ({killed[-1]['detail'][:80]}), supervisor {before} went on"
    )


@long_step
def guests_are_interpreted_where_no_machine_code_may_be_made() -> str:
    shipped = Path("/usr/share/doc/edge-verdict/examples/edge.service.d/interpreted.conf")
    drop_in(*shipped.read_text().partition("[Service]")[2].split())
    lost = len(events("worker_lost"))
    sh("systemctl restart --no-block edge")
    # The demo's guests are granted 40 ms, and the interpreter needs more: what ends them is their
    # budget, in the middle of a frame, and no ban on machine code.
    until(lambda: len(events("worker_lost")) > lost, "the demo's guests are too slow for it")
    detail = str(events("worker_lost")[-1]["detail"])
    assert show("MemoryDenyWriteExecute") == "yes"
    drop_in()
    sh("systemctl restart edge")
    until(stands, "READY by machine code")
    assert "guest-budget" in detail, detail
    return detail[:160]


@long_step
def a_password_comes_as_a_credential_and_shows_nowhere() -> str:
    assert Path("/etc/credstore").stat().st_mode & 0o777 == 0o700
    Path("/etc/credstore/edge.broker-password").write_text(SECRET)
    Path("/etc/credstore/edge.broker-password").chmod(0o600)
    sh("mosquitto_passwd -c -b /etc/mosquitto/passwd box1 '" + SECRET + "'", quiet=True)
    sh("chown mosquitto /etc/mosquitto/passwd", quiet=True)
    auth = Path("/etc/mosquitto/conf.d/auth.conf")
    auth.write_text("allow_anonymous false\npassword_file /etc/mosquitto/passwd\n")
    good = CONFIG.read_text()
    words = 'username = "box1"\npassword_file = "/run/credentials/edge.service/broker-password"\n'
    CONFIG.write_text(good.replace("port = 1883\n", "port = 1883\n" + words))
    sh("systemctl restart mosquitto edge")
    until(stands, "READY with the password")
    pid = main_pid()
    for name in ("cmdline", "environ"):
        assert SECRET.encode() not in Path(f"/proc/{pid}/{name}").read_bytes(), name
    assert SECRET not in sh("journalctl -b --no-pager", quiet=True)
    CONFIG.write_text(good)
    auth.unlink()
    sh("systemctl restart mosquitto edge")
    until(stands, "READY without")
    return "connected; not in arguments, environment or journal"


@long_step
def a_backup_is_made_while_it_runs_and_can_be_verified() -> str:
    held = records()
    copied, verified = page("Backup")
    sh(copied)
    said = sh(verified)
    assert "sound; ledger" in said, said
    assert f"{held} records" in said, said
    return f"{held} records"


@long_step
def an_upgrade_keeps_configuration_state_and_deployment() -> str:
    CONFIG.write_text(CONFIG.read_text() + "\n# mine\n")
    held, before = records(), main_pid()
    sh("apt-get install ./edge-next.deb")
    until(lambda: main_pid() not in (0, before) and stands(), "the new one is READY")
    assert CONFIG.read_text().endswith("# mine\n")
    assert records() >= held > 0
    score = replay(20)
    assert score["answered"] == 20
    assert records() >= held + 20
    return f"{held} records kept"


@long_step
def going_back_is_allowed_within_one_format_of_the_state() -> str:
    held, before = records(), main_pid()
    sh("apt-get install --allow-downgrades ./edge-verdict_*.deb")
    until(lambda: main_pid() not in (0, before) and stands(), "the old one is READY")
    assert records() >= held
    return f"{held} records kept"


@step
def going_back_over_a_newer_format_is_refused_and_changes_nothing() -> str:
    Path("/opt/edge/state-format").write_text("99\n")
    before = main_pid()
    said = sh("apt-get install --reinstall ./edge-verdict_*.deb", may_fail=True)
    assert "never converted back" in said, said
    assert main_pid() == before
    assert stands()
    assert (
        sh("dpkg-query -W -f '${Status}' edge-verdict", quiet=True).strip()
        == "install ok installed"
    )
    return "refused in preinst"


@long_step
def the_way_back_over_a_newer_format_is_as_the_page_says() -> str:
    held = records()
    sh("systemctl stop edge")
    sh("mv /var/lib/private/edge /var/lib/edge-evidence")
    sh("apt-get remove edge-verdict")
    sh("apt-get install ./edge-verdict_*.deb")
    until(stands, "the old one is READY, on a state of its own")
    assert replay(5)["answered"] == 5
    assert records() == 5
    said = sh("edge ledger verify /var/lib/edge-evidence/ledger")
    assert f"{held} records" in said, said
    return f"5 new records; {held} in what was moved aside, sound"


@step
def removal_stops_and_keeps_what_is_yours() -> str:
    sh("apt-get remove edge-verdict")
    assert show("ActiveState") == "inactive", show("ActiveState")
    assert ask("/login")[0] == 0, "the page stopped, too"
    assert not Path("/usr/bin/edge").exists()
    assert not Path("/opt/edge").exists(), sh("find /opt/edge | head", quiet=True)
    assert CONFIG.exists()
    assert (STATE / "ledger").is_dir()
    return "configuration and ledger stay"


@step
def an_installation_after_a_removal_starts_again_what_was_stopped() -> str:
    sh("apt-get install ./edge-verdict_*.deb")
    took_s = until(stands, "READY with the configuration and the ledger of before")
    until(lambda: ask("/api/live")[0] == 401, "the page, too")
    held = records()
    assert held > 0
    return f"READY after {took_s:.1f} s, {held} records"


@long_step
def what_was_disabled_stays_so_over_a_removal() -> str:
    sh("systemctl disable --now edge")
    sh("apt-get remove edge-verdict")
    sh("apt-get install ./edge-verdict_*.deb")
    assert show("ActiveState") == "inactive", show("ActiveState")
    sh("systemctl enable edge")
    return "not started"


@step
def purging_leaves_nothing() -> str:
    sh("apt-get purge edge-verdict")
    wants = Path("/etc/systemd/system/multi-user.target.wants")
    units = (wants / "edge.service", wants / "edge-console.service")
    paths = ("/etc/edge", "/etc/credstore", "/opt/edge", STATE, "/var/lib/edge", *units)
    left = [p for p in paths if os.path.lexists(p)]
    assert not left, left
    return "nothing left"


def main() -> int:
    """Take the steps, and write how each ended."""
    results = []
    for claim in STEPS:
        began = time.monotonic()
        _transcript.write(f"\n## {claim.__name__}\n")
        try:
            detail, outcome = claim(), "passed"
            if detail.startswith("SKIP "):
                detail, outcome = detail[5:], "skipped"
        except Exception as failed:  # noqa: BLE001 - it is the result of the step
            detail, outcome = f"{type(failed).__name__}: {failed}", "failed"
        results.append(
            {
                "claim": claim.__name__,
                "outcome": outcome,
                "detail": detail,
                "seconds": round(time.monotonic() - began, 1),
            }
        )
        (OUT / "results.json").write_text(json.dumps(results, indent=1))
    sh("journalctl -b --no-pager > /out/journal.txt", may_fail=True, quiet=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
