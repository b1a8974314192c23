"""What docs/deployments.md shows is what the code takes and says."""

import re
from pathlib import Path

from edge.deployment.manifest import Manifest
from edge.deployment.schema import parse

DOCUMENT = (Path(__file__).parents[3] / "docs/deployments.md").read_text()


def test_the_manifest_in_the_document_is_sound() -> None:
    (example,) = re.findall(r"```toml\n(.*?)```", DOCUMENT, re.DOTALL)
    manifest = parse(example.encode(), Manifest, "docs/deployments.md")
    assert manifest.pipelines["caps"].reference == "reference.top"


def test_the_messages_in_the_document_are_those_of_the_code() -> None:
    rooms = Path(__file__).parents[3] / "edge"
    code = "".join(
        path.read_text()
        for room in ("deployment", "inference")
        for path in sorted((rooms / room).glob("*.py"))
    )
    for words in (
        "is not the file that was pinned",
        "changed since it was verified",
        "is a symbolic link",
        "requires provider",
        "does not load it with",
        "its card says",
        "keeps weights in another file",
        "has an operator of domain",
    ):
        assert words in DOCUMENT
        assert words in code
