"""The device config: read as it stands, or refused with file, key, finding and remedy."""

from pathlib import Path

import pytest

from edge import config
from edge.errors import ConfigError


def _file(folder: Path, text: str | bytes) -> Path:
    path = folder / "edge.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def _refusal(folder: Path, text: str | bytes, *overrides: str) -> str:
    with pytest.raises(ConfigError) as refused:
        config.load(_file(folder, text), overrides)
    return str(refused.value)


def test_an_empty_file_gives_the_defaults(tmp_path: Path) -> None:
    loaded = config.load(_file(tmp_path, ""))
    assert loaded.device.id == "box1"
    assert loaded.broker.port == 1883
    assert loaded.inference.provider == "cpu"
    assert loaded.inference.require
    assert loaded.bindings.find("camera.top") is None


def test_every_kind_of_value_is_read(tmp_path: Path) -> None:
    loaded = config.load(
        _file(
            tmp_path,
            """
            device.id = "box7"
            broker = { host = "plc", port = 8883, tls = { ca_file = "/etc/ca.pem" } }
            status.interval_s = 1
            inference = { require = false, options = { device_type = "GPU" } }
            bindings.camera.top = "line/top/frame"
            bindings.signal.oven = { topic = "oven", qos = 0, pointer = "/t" }
            """,
        )
    )
    assert loaded.broker.tls is not None
    assert loaded.broker.tls.ca_file == Path("/etc/ca.pem")
    assert loaded.status.interval_s == 1.0
    assert loaded.inference.options == {"device_type": "GPU"}
    assert loaded.bindings.find("camera.top") == config.Binding(topic="line/top/frame")
    oven = loaded.bindings.find("signal.oven")
    assert oven is not None
    assert (oven.qos, oven.pointer) == (0, "/t")


@pytest.mark.parametrize("name", ["", "camera", "camera.left", "find.top", "model_fields.x"])
def test_a_name_that_is_not_bound_is_not_found(name: str) -> None:
    bindings = config.BindingsSection(camera={"top": config.Binding(topic="t")})
    assert bindings.find(name) is None


def test_a_config_cannot_be_changed_once_read() -> None:
    with pytest.raises(ValueError, match="frozen"):
        setattr(config.DeviceConfig().device, "id", "other")  # noqa: B010 - the type forbids it


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[broker]\nprot = 1883", "broker.prot: unknown key; did you mean 'port'?"),
        ("[brocker]\nport = 1883", "brocker: unknown key; did you mean 'broker'?"),
        ("[deadlines]\nhang_s = 2", "deadlines.hang_s: unknown key; did you mean 'hang_ms'?"),
        ("[clock]\nzzz = 2", "clock.zzz: unknown key; known: max_future_ms, max_age_s"),
        ("[broker]\nport = 0", "broker.port: should be greater than or equal to 1, found 0"),
        ("[broker]\nport = 70000", "found 70000"),
        ('[broker]\nport = "1883"', "broker.port: should be a valid integer, found '1883'"),
        ("[broker]\nport = true", "broker.port: should be a valid integer, found True"),
        ("[broker]\nkeepalive_s = 7.5", "broker.keepalive_s: should be a valid integer"),
        ("[status]\ninterval_s = nan", "status.interval_s"),
        ("[status]\ninterval_s = inf", "status.interval_s"),
        ('[status]\ninterval_s = "5 s"', "status.interval_s: should be a valid number"),
        ('[inference]\nrequire = "yes"', "inference.require: should be a valid boolean"),
        ('[inference]\nprovider = "gpu"', "provider 'gpu' is none of cpu, cuda"),
        ("[inference]\noptions = { device_id = 0 }", "inference.options.device_id"),
        ('[device]\nid = "box/1"', "device.id: should be 1 to 64 letters, digits"),
        ('[device]\nid = ""', "device.id"),
        ("[broker.tls]\n", "broker.tls.ca_file: is missing"),
        ("broker = 1883", "broker: should be a table, found 1883"),
        ("[bindings]\ncamera = 3", "bindings.camera: should be a table, found 3"),
        ("[ledger]\ncosigners = 3", "ledger.cosigners: should be an array, found 3"),
        ("[storage]\npath = 3", "storage.path: should be a path in quotes, found 3"),
        ('[broker]\npassword_file = "/p"', "password_file needs username"),
        ('[broker.tls]\nca_file="/c"\nkey_file="/k"', "belong together"),
    ],
)
def test_an_unfit_value_is_refused_with_its_key_and_what_was_found(
    tmp_path: Path, text: str, said: str
) -> None:
    message = _refusal(tmp_path, text)
    assert said in message
    assert str(tmp_path / "edge.toml") in message
    assert "edge check" in message


@pytest.mark.parametrize(
    ("topic", "said"),
    [
        ("line/{part}", "known placeholders"),
        ("line/x{part_id}", "whole topic level"),
        ("line/{part_id", "whole topic level"),
        ("line/a+", "wildcard must be a whole"),
        ("line/#/frame", "last topic level"),
        ("line/{part_id}/{part_id}", "occurs twice"),
        ("line/a\\u0000b", "control characters"),
        ("line/a\\u001fb", "control characters"),
        ("line/a\\ufffe", "control characters"),
        ("$share/g/line", "`share`"),
        ("", "at least 1 character"),
        ("x" * 513, "at most 512"),
    ],
)
def test_a_topic_that_mqtt_or_the_contract_forbids_is_refused(
    tmp_path: Path, topic: str, said: str
) -> None:
    message = _refusal(tmp_path, f'bindings.camera.top = "{topic}"')
    assert said in message
    assert "bindings.camera.top" in message


@pytest.mark.parametrize("topic", ["line/+/frame", "line/#", "#", "line/{part_id}/{reference_id}"])
def test_wildcards_and_placeholders_are_taken_for_inputs(tmp_path: Path, topic: str) -> None:
    loaded = config.load(_file(tmp_path, f'bindings.camera.top = "{topic}"'))
    assert loaded.bindings.camera["top"].topic == topic


@pytest.mark.parametrize("topic", ["spBv1.0/plant7/+/line3", "spBv1.0/plant 7/+/line3/oven"])
def test_a_metric_of_an_edge_node_or_device_is_a_signal(tmp_path: Path, topic: str) -> None:
    text = f'bindings.signal.oven = {{ topic = "{topic}", metric = "zones/1", rebirth = true }}'
    binding = config.load(_file(tmp_path, text)).bindings.find("signal.oven")
    assert binding is not None
    assert (binding.metric, binding.rebirth) == ("zones/1", True)


@pytest.mark.parametrize(
    ("kind", "binding", "said"),
    [
        ("signal", '"spBv1.0/plant7/+/line3"', "name its `metric`"),
        ("signal", '{ topic = "line/oven", rebirth = true }', "rebirth is for Sparkplug"),
        ("signal", '{ topic = "line/oven", metric = "t" }', "GROUP/+/NODE"),
        ("signal", '{ topic = "spBv1.0/plant7/NDATA/line3", metric = "t" }', "GROUP/+/NODE"),
        ("signal", '{ topic = "spBv1.0/+/+/line3", metric = "t" }', "GROUP/+/NODE"),
        ("signal", '{ topic = "spBv1.0/plant7/+/line3/#", metric = "t" }', "GROUP/+/NODE"),
        ("signal", '{ topic = "spBv1.0/p/+/n", metric = "t", pointer = "/v" }', "no pointer"),
        ("signal", '{ topic = "spBv1.0/p/+/n", metric = "t", share = "g" }', "no pointer"),
        ("camera", '{ topic = "spBv1.0/p/+/n", metric = "t" }', "a metric is for signals"),
    ],
)
def test_a_metric_bound_wrongly_is_refused(
    tmp_path: Path, kind: str, binding: str, said: str
) -> None:
    assert said in _refusal(tmp_path, f"bindings.{kind}.oven = {binding}")


@pytest.mark.parametrize("topic", ["line/+/reject", "line/#"])
def test_an_action_goes_to_one_topic(tmp_path: Path, topic: str) -> None:
    assert "no wildcard" in _refusal(tmp_path, f'bindings.action.reject = "{topic}"')


def test_an_actions_topic_has_no_placeholder_since_nobody_would_fill_it(tmp_path: Path) -> None:
    said = _refusal(tmp_path, 'bindings.action.reject = "line/{part_id}/reject"')
    assert "action.reject: no placeholder" in said


def test_a_logical_name_is_a_plain_word(tmp_path: Path) -> None:
    assert "bindings.camera.to p" in _refusal(tmp_path, 'bindings.camera."to p" = "x"')


def test_all_findings_are_told_at_once(tmp_path: Path) -> None:
    message = _refusal(tmp_path, '[broker]\nport = 0\nkeepalive_s = 1\n[log]\nlevel = "loud"')
    for key in ("broker.port", "broker.keepalive_s", "log.level"):
        assert key in message


def test_a_secret_in_the_wrong_place_is_not_repeated(tmp_path: Path) -> None:
    message = _refusal(tmp_path, '[broker]\npassword = "hunter2"')
    assert "broker.password: unknown key; did you mean 'password_file'?" in message
    assert "hunter2" not in message


def test_a_long_value_is_shortened(tmp_path: Path) -> None:
    assert len(_refusal(tmp_path, f'[log]\nlevel = "{"x" * 5_000}"')) < 600


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.toml: cannot be read: No such file"):
        config.load(tmp_path / "nowhere.toml")


def test_a_folder_is_no_config(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        config.load(tmp_path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"device.id = '\xff\xfe'", "is not UTF-8"),
        (b"device.id = ", "is not TOML"),
        (b"device.id = 'a'\ndevice.id = 'b'", "is not TOML"),
        (b"x = " + b"[" * 100_000, "nest too deeply"),
        (b"#" * (config.MAX_FILE_BYTES + 1), "is larger than"),
    ],
)
def test_a_file_that_is_no_config_is_refused(tmp_path: Path, content: bytes, said: str) -> None:
    assert said in _refusal(tmp_path, content)


def test_a_byte_order_mark_is_no_reason_to_refuse(tmp_path: Path) -> None:
    assert config.load(_file(tmp_path, b"\xef\xbb\xbfdevice.id = 'a'")).device.id == "a"


@pytest.mark.parametrize(
    ("override", "section", "key", "value"),
    [
        ("broker.port=18830", "broker", "port", 18830),
        ("broker.host=10.0.0.5", "broker", "host", "10.0.0.5"),
        ('broker.host="plc"', "broker", "host", "plc"),
        ("broker.host = plc", "broker", "host", "plc"),
        ("inference.require=false", "inference", "require", False),
        ("storage.path=/tmp/x=y", "storage", "path", Path("/tmp/x=y")),
        ("status.interval_s=0.5", "status", "interval_s", 0.5),
        ('inference.options={a="b"}', "inference", "options", {"a": "b"}),
        ("device.description=", "device", "description", ""),
        ("device.description=1\nx=2", "device", "description", "1\nx=2"),
    ],
)
def test_an_override_is_laid_over_the_file(
    tmp_path: Path, override: str, section: str, key: str, value: object
) -> None:
    loaded = config.load(_file(tmp_path, "broker.port = 1\n"), (override,))
    assert getattr(getattr(loaded, section), key) == value


def test_the_last_override_wins_and_binds_topics_too(tmp_path: Path) -> None:
    loaded = config.load(
        _file(tmp_path, ""), ("device.id=a", "bindings.camera.top=x/y", "device.id=b")
    )
    assert loaded.device.id == "b"
    assert loaded.bindings.camera["top"].topic == "x/y"


@pytest.mark.parametrize("override", ["broker.port", "=5", "", "broker..port=1", ".=1", "a.=1"])
def test_an_override_without_key_or_value_is_refused(tmp_path: Path, override: str) -> None:
    assert "is not of the form key.path=value" in _refusal(tmp_path, "", override)


def test_an_override_below_a_plain_value_is_refused(tmp_path: Path) -> None:
    message = _refusal(tmp_path, "device.id = 'a'", "device.id.x=1")
    assert "--set" in message
    assert "'id' is not a table" in message


def test_a_finding_says_that_it_came_from_an_override(tmp_path: Path) -> None:
    message = _refusal(tmp_path, "log.level = 'loud'", "broker.port=0")
    assert "broker.port (from --set)" in message
    assert "log.level:" in message


def test_a_document_handed_in_is_left_as_it_was() -> None:
    document = {"broker": {"port": 1}}
    config.parse(document, "test", ("broker.port=2",))
    assert document == {"broker": {"port": 1}}
