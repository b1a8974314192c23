"""The configuration document, read by each language's own reader: all of them agree."""

import hashlib
from collections.abc import Iterator

import numpy as np
import pytest
from guest_toolchains import need

from edge.sdk import project
from edge.wasm.engine import GuestEngine, GuestModule
from edge.wasm.guest import Guest

OK, REFUSED = 0, -1
DOCUMENTS = [
    ('{"parameters":{"score":0.25},"classes":["a"]}', OK),
    (' {\n"parameters" : {\t"score" : 1 } }\r\n', OK),
    ("{}", OK),
    ('{"parameters":{}}', OK),
    ('{"parameters":{"score":0}}', OK),
    ('{"parameters":{"score":-0}}', OK),
    ('{"parameters":{"score":5e-1}}', OK),
    ('{"parameters":{"score":0.05E+1}}', OK),
    ('{"parameters":{"score":0.' + "3" * 400 + "}}", OK),
    ('{"later":[1,{"a":[true,false,null,"\\u00e9\\n\\"]}"]}],"parameters":{"score":1}}', OK),
    ('{"later":"\u00e9\u4e2d\U0001f600","parameters":{"score":1}}', OK),
    ('{"later":' + "[" * 12 + "]" * 12 + "}", OK),
    ('{"parameters":{"score":1.0001}}', REFUSED),
    ('{"parameters":{"score":-1e-9}}', REFUSED),
    ('{"parameters":{"score":1e999}}', REFUSED),
    ('{"parameters":{"score":"0.5"}}', REFUSED),
    ('{"parameters":{"score":true}}', REFUSED),
    ('{"parameters":{"score":null}}', REFUSED),
    ('{"parameters":{"score":[0.5]}}', REFUSED),
    ('{"parameters":{"score":NaN}}', REFUSED),
    ('{"parameters":{"score":+0.5}}', REFUSED),
    ('{"parameters":{"score":.5}}', REFUSED),
    ('{"parameters":{"score":0.}}', REFUSED),
    ('{"parameters":{"score":00.5}}', REFUSED),
    ('{"parameters":{"score":0.5e}}', REFUSED),
    ('{"parameters":{"score":0.5,}}', REFUSED),
    ('{"parameters":{"score":0.5,"score":0.5}}', REFUSED),
    ('{"parameters":{"Score":0.5}}', REFUSED),
    ('{"parameters":[0.5]}', REFUSED),
    ('{"parameters":0.5}', REFUSED),
    ("{'parameters':{}}", REFUSED),
    ('{"parameters":{"score":0.5}', REFUSED),
    ('{"parameters":{"score":0.5}}}', REFUSED),
    ('{"later":"\\x41"}', REFUSED),
    ('{"later":"\\u12"}', REFUSED),
    ('{"later":"\n"}', REFUSED),
    ('{"later":tru}', REFUSED),
    ('{"later":' + "[" * 5000 + "]" * 5000 + "}", REFUSED),
    ("\ufeff{}", REFUSED),
    ("", REFUSED),
]


@pytest.fixture(scope="module", params=["c", "zig", "rust", "go", "assemblyscript"])
def module(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[GuestModule]:
    """The postprocess template of a language."""
    need(request.param)
    folder = tmp_path_factory.mktemp("guest")
    built = project.build(project.make("try-it", request.param, "postprocess", folder))
    digest = hashlib.sha256(built.read_bytes()).hexdigest()
    with GuestEngine(folder / "cache") as engine:
        yield engine.load(built, digest, 32)


def configure(guest: Guest, text: bytes) -> int:
    address = guest.alloc(max(len(text), 1), 8)
    guest.view(address, (len(text),), np.uint8)[:] = np.frombuffer(text, np.uint8)
    return guest.call("edge_configure", address, len(text))


@pytest.mark.timeout(300)
def test_every_reader_takes_and_refuses_the_same_documents(module: GuestModule) -> None:
    wrong = []
    for text, expected in DOCUMENTS:
        guest = module.instantiate(1000)
        found = configure(guest, text.encode())
        said = guest.error_text(found) if found else ""
        if found != expected or (found and ":" not in said):
            wrong.append((text[:80], found, said))
    assert wrong == []
