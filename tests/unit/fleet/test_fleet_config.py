"""The collector's config, and its page."""

from pathlib import Path

import pytest

from edge.errors import ConfigError
from edge.fleet import config
from edge.fleet.config import CollectConfig

PAGE = Path(__file__).parents[3] / "docs" / "fleet.md"


def _load(tmp_path: Path, text: str) -> CollectConfig:
    path = tmp_path / "collect.toml"
    path.write_text(text)
    return config.load(path)


def test_an_empty_config_collects_into_sqlite(tmp_path: Path) -> None:
    found = _load(tmp_path, "")
    assert found.store.url.startswith("sqlite:///var/lib/edge-collect/")
    assert found.broker.port == 1883


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[store]\nurl = "mysql://x/y"', "sqlite:// or postgresql://"),
        ('[store]\nurl = "postgresql://me:secret@host/db"', "password_file"),
        ('[store]\nurl = "sqlite://relative/path"', "absolute path"),
        ('[store]\nurl = "sqlite:fleet.db"', "absolute path"),
        ("[collect]\nsilent_after = 3", "did you mean 'silent_after_s'"),
        ("[collect]\nsilent_after_s = 0", "greater than 0"),
        ('[collect]\nshare = "a/b"', "pattern"),
    ],
)
def test_a_wrong_key_or_value_is_named(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as refused:
        _load(tmp_path, text)
    assert "docs/fleet.md" in str(refused.value)
    assert "secret" not in str(refused.value)


def test_the_page_names_every_key_of_ours() -> None:
    page = PAGE.read_text()
    for section in ("store", "collect"):
        model = CollectConfig.model_fields[section].annotation
        assert model is not None
        for key in model.model_fields:
            assert f"`{section}.{key}`" in page, key
