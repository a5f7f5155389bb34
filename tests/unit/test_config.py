from pathlib import Path
from typing import Any

import pytest

from memoryd.app import check_exposure
from memoryd.config import Settings, load_settings
from memoryd.errors import SetupError


def test_options_win_over_variables_and_those_over_the_file(tmp_path: Path) -> None:
    config = tmp_path / "memoryd.toml"
    config.write_text('port = 1\nhost = "10.0.0.1"\nmodel = "from-file"\n')
    environment = {"MEMORYD_PORT": "2", "MEMORYD_HOST": "10.0.0.2", "OTHER_PORT": "9"}
    settings = load_settings({"port": 3, "host": None}, config=config, environment=environment)
    assert (settings.port, settings.host, settings.model) == ((3,), "10.0.0.2", "from-file")


def test_the_file_can_be_named_by_a_variable(tmp_path: Path) -> None:
    config = tmp_path / "elsewhere.toml"
    config.write_text("port = 1")
    assert load_settings(environment={"MEMORYD_CONFIG": str(config)}).port == (1,)


@pytest.mark.parametrize(
    ("given", "ports"),
    [
        ({"overrides": {"port": [11434, 8765]}}, (11434, 8765)),
        ({"overrides": {"port": [0, 0]}}, (0, 0)),
        ({"overrides": {"port": []}}, (8765,)),
        ({"environment": {"MEMORYD_PORT": "11434, 8765"}}, (11434, 8765)),
        ({"text": "port = [11434, 8765]"}, (11434, 8765)),
        ({"text": "port = 11434"}, (11434,)),
    ],
)
def test_several_ports_can_be_given_in_each_way(
    tmp_path: Path, given: dict[str, Any], ports: tuple[int, ...]
) -> None:
    assert load_from(tmp_path, **given).port == ports


@pytest.mark.parametrize(
    "given",
    [
        {"overrides": {"alias": ["a=all-minilm", "b:x=bge-m3"]}},
        {"environment": {"MEMORYD_ALIAS": "a=all-minilm, b:x = bge-m3"}},
        {"text": 'alias = ["a=all-minilm", "b:x=bge-m3"]'},
        {"text": '[alias]\na = "all-minilm"\n"b:x" = "bge-m3"'},
    ],
)
def test_several_aliases_can_be_given_in_each_way(tmp_path: Path, given: dict[str, Any]) -> None:
    assert load_from(tmp_path, **given).alias == {"a": "all-minilm", "b:x": "bge-m3"}


def load_from(
    folder: Path,
    *,
    overrides: dict[str, Any] | None = None,
    environment: dict[str, str] | None = None,
    text: str = "",
) -> Settings:
    config = folder / "memoryd.toml"
    config.write_text(text)
    return load_settings(overrides, config=config, environment=environment or {})


@pytest.mark.parametrize(
    ("overrides", "environment", "text", "told"),
    [
        ({"port": "x"}, {}, "", "option --port"),
        ({"max_body_bytes": 0}, {}, "", "option --max-body-bytes"),
        ({}, {"MEMORYD_PORT": "70000"}, "", "variable MEMORYD_PORT"),
        ({}, {"MEMORYD_LOG_LEVEL": "loud"}, "", "variable MEMORYD_LOG_LEVEL"),
        ({}, {"MEMORYD_DATA_DIR": "~nobody-here/x"}, "", "variable MEMORYD_DATA_DIR: .*~nobody"),
        ({}, {}, "port = -1", "key 'port' in "),
        ({}, {}, "port = []", "key 'port' in "),
        ({"port": [1, 2, 1]}, {}, "", "option --port: the same port stands there twice"),
        ({}, {"MEMORYD_PORT": "1,"}, "", "variable MEMORYD_PORT"),
        ({"alias": ["a"]}, {}, "", "option --alias: 'a' must be of the form name=model"),
        ({}, {"MEMORYD_ALIAS": "a="}, "", "variable MEMORYD_ALIAS: 'a=' must be of the form"),
        ({}, {"MEMORYD_ALIAS": "a=b,a=c"}, "", "variable MEMORYD_ALIAS: the same name"),
        ({}, {}, "alias = {a = 5}", "key 'alias' in "),
        ({}, {}, "prot = 1", "key 'prot' in "),
        ({}, {}, "port =", "is not TOML"),
        ({}, {}, "\x00", "is not TOML"),
    ],
)
def test_a_wrong_setting_is_named_with_where_it_was_set(
    tmp_path: Path,
    overrides: dict[str, object],
    environment: dict[str, str],
    text: str,
    told: str,
) -> None:
    config = tmp_path / "memoryd.toml"
    config.write_text(text)
    with pytest.raises(SetupError, match=told):
        load_settings(overrides, config=config, environment=environment)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match=r"cannot read .*missing\.toml"):
        load_settings(config=tmp_path / "missing.toml", environment={})


def test_an_empty_variable_counts_as_absent(tmp_path: Path) -> None:
    config = tmp_path / "memoryd.toml"
    config.write_text('data_dir = "/srv/memoryd"')
    names = ("CONFIG", "DATA_DIR", "PORT", "DATABASE_URL", "HOST")
    settings = load_settings(config=config, environment={f"MEMORYD_{name}": "" for name in names})
    assert settings == load_settings(config=config, environment={})
    assert settings.data_dir == Path("/srv/memoryd")


def test_paths_begin_at_home_or_where_memoryd_is_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, work = tmp_path / "home", tmp_path / "work"
    home.mkdir()
    work.mkdir()
    (home / "memoryd.toml").write_text('data_dir = "~/data"')
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(work)
    environment = {"MEMORYD_MODELS_DIR": "models"}
    settings = load_settings(config=Path("~/memoryd.toml"), environment=environment)
    assert (settings.data_dir, settings.models_dir) == (home / "data", work / "models")
    assert load_settings({"data_dir": Path("../x")}).data_dir.is_absolute()


def test_secrets_are_not_printed() -> None:
    settings = Settings(api_key="s3cret", database_url="postgresql://u:s3cret@h/d")
    assert "s3cret" not in repr(settings)
    assert "s3cret" not in str(settings.model_dump())


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost"])
def test_this_machine_alone_needs_no_key(host: str) -> None:
    check_exposure(Settings(host=host))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.1.2.3", "example.com", ""])  # noqa: S104 - meant
def test_others_can_reach_memoryd_only_with_a_key(host: str) -> None:
    with pytest.raises(SetupError, match="MEMORYD_API_KEY"):
        check_exposure(Settings(host=host))
    check_exposure(Settings(host=host, api_key="k"))


def test_every_setting_says_what_it_is() -> None:
    for field in Settings.model_fields.values():
        assert (field.description or "").endswith(".")


def test_an_empty_key_is_no_key() -> None:
    with pytest.raises(SetupError):
        check_exposure(Settings(host="10.1.2.3", api_key=""))
