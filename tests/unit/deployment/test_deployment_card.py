"""The model card's rules."""

import pytest
from deployment_samples import CARD

from edge.deployment.card import Card
from edge.deployment.schema import parse
from edge.errors import DeploymentError


def test_a_whole_card_is_read() -> None:
    card = parse(CARD.encode(), Card, "card.toml")
    assert card.model.classes == ("open", "short")
    assert card.inputs[0].shape == (1, 2, 32, 32)
    assert card.accuracy[0].per_class == {"open": 0.9, "short": 0.9}
    assert card.verdicts[0].escape_interval == (0.0, 0.2)
    variant = card.variant("int8")
    assert variant is not None
    assert variant.file == "board.int8.onnx"
    assert card.variant("fp32") is None


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('task = "detection"', 'task = "poetry"', "model.task"),
        ('classes = ["open", "short"]', 'classes = ["open", "open"]', "'open' appears twice"),
        ('classes = ["open", "short"]', "classes = []", "model.classes"),
        ('file = "board.int8.onnx"', 'file = "sub/board.onnx"', "in the folder of the card"),
        ('file = "board.int8.onnx"', 'file = "../board.onnx"', "model.variants.0.file"),
        ('dtype = "uint8"', 'dtype = "float64"', "inputs.0.dtype"),
        ("shape = [1, 2, 32, 32]", "shape = [1, 2, 0, 32]", "inputs.0.shape.2"),
        ("shape = [1, 2, 32, 32]", "shape = [1, 2, 32, -1]", "inputs.0.shape.3"),
        ("shape = [1, 2, 32, 32]", "shape = [2147483648, 2147483648]", "is larger than"),
        ("shape = [1, 2, 32, 32]", "shape = [1, 1, 1, 1, 1, 1, 1, 1, 1]", "inputs.0.shape"),
        ('layout = "NCHW"\n', "", "inputs.0.layout: is missing"),
        ("score = 0.5", "score = 1.5", "thresholds.score"),
        ("score = 0.5", "score = nan", "thresholds.score"),
        ('variant = "int8"\nparts', 'variant = "fp16"\nparts', "verdicts speaks of variant 'fp16'"),
        ("open = 0.9", "ajar = 0.9", "'ajar' is not in model.classes"),
        ("escape_interval = [0.0, 0.2]", "escape_interval = [0.0]", "escape_interval"),
        ("p50_ms = 3", "p50_ms = 0", "latency.0.p50_ms"),
        ("[thresholds]", "[surprise]\n[thresholds]", "surprise: unknown key"),
    ],
)
def test_a_card_that_cannot_be_relied_on_is_refused(old: str, new: str, words: str) -> None:
    assert old in CARD
    with pytest.raises(DeploymentError) as raised:
        parse(CARD.replace(old, new).encode(), Card, "card.toml")
    assert str(raised.value).startswith("card.toml: ")
    assert words in str(raised.value)
