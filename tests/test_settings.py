"""Settings: precedence of the sources, and errors that name the setting and never its value."""

import os
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
from frames import all_said
from processes import without_privileges
from pydantic import ValidationError
from typer.testing import CliRunner

from feedback_etl.cli.app import app
from feedback_etl.errors import UsageError
from feedback_etl.settings.model import Settings, load_settings

CANARY = "canary-4711"
OTHERS = 65534
"""The user and the group nobody."""

only_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to other users and groups")


def url(**flags: str) -> str | None:
    secret = load_settings(**flags).database_url
    return secret.get_secret_value() if secret else None


def write(name: str, text: str) -> None:
    Path(name).write_text(text, encoding="utf-8")


def refused(**flags: object) -> str:
    """Return the message of the error; neither it nor its causes contain the canary."""
    with pytest.raises(UsageError) as caught:
        load_settings(**flags)
    assert CANARY not in all_said(caught.value)
    return str(caught.value)


def test_precedence_of_sources(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Command line, environment, files, default: each source is removed in turn."""
    monkeypatch.setenv("FEEDBACK_ETL_DATABASE_URL", "ours")
    monkeypatch.setenv("DATABASE_URL", "common")
    write("feedback-etl.toml", 'database_url = "file"')
    write("pyproject.toml", '[tool.feedback-etl]\ndatabase_url = "project"')
    urls = [url(database_url="flag"), url()]
    monkeypatch.delenv("FEEDBACK_ETL_DATABASE_URL")
    urls.append(url())
    monkeypatch.delenv("DATABASE_URL")
    urls.append(url())
    Path("feedback-etl.toml").unlink()
    urls.append(url())
    Path("pyproject.toml").unlink()
    urls.append(url())
    assert urls == ["flag", "ours", "common", "file", "project", None]


LINEAGE = ("lineage", "lineage_hosts")
CONSENT = ("opt_in_column", "opt_out_column")
RECORD = (
    *("retention_days", "controller", "contact", "purpose", "legal_basis", "recipients"),
    *("transfers", "data_protection_officer"),
)
PRIVACY = (
    "timestamp_precision",
    "pseudonym_length",
    "k",
    "on_small_class",
    "max_suppressed",
    *("l", "t", "hierarchies"),
    "quasi_identifiers",
    *CONSENT,
)


def test_every_setting_has_three_sources(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command line, FEEDBACK_ETL_<NAME> and the file, for each field."""
    text = {"database_url", "db_schema", "output_dir", "key_file"}
    schema = {"query", "source", "ratings", "lists", "columns", "dedup", "age_edges", "row_model", "formulas", "cursor"}
    schema |= {"allow_row_security", "min_age_range", "items"}
    timeouts = {"connect_timeout", "read_timeout", "lock_timeout", "batch_size"}
    assert set(Settings.model_fields) == {*text, *timeouts, "retired_keys", *schema, *LINEAGE, *PRIVACY, *RECORD}
    write("feedback-etl.toml", "\n".join([*(f'{name} = "file"' for name in text), "connect_timeout = 3"]))
    assert values() == ["file"] * 4 + ["3.0"]
    for name in text:
        monkeypatch.setenv(f"FEEDBACK_ETL_{name.upper()}", "environment")
    monkeypatch.setenv("FEEDBACK_ETL_CONNECT_TIMEOUT", "4")
    assert values() == ["environment"] * 4 + ["4.0"]
    assert values(**dict.fromkeys(text, "flag"), connect_timeout=5) == ["flag"] * 4 + ["5.0"]


def values(**flags: object) -> list[str]:
    settings = load_settings(**flags)
    assert settings.database_url
    shown = settings.database_url.get_secret_value(), settings.db_schema, settings.output_dir, settings.key_file
    return [*map(str, shown), str(settings.connect_timeout)]


def test_defaults() -> None:
    """Nothing is configured."""
    assert load_settings() == Settings(
        database_url=None,
        db_schema=None,
        allow_row_security=False,
        output_dir=Path("ml/feedback_training"),
        connect_timeout=2.0,
        read_timeout=600.0,
        batch_size=65_536,
        cursor="created_at",
        lock_timeout=60.0,
        timestamp_precision="exact",
        pseudonym_length=16,
        k=None,
        on_small_class="suppress",
        max_suppressed=1.0,
        l=None,
        t=None,
        hierarchies={},
        quasi_identifiers=("age_range", "conditions_detected", "timeframe"),
        ratings={},
        lists={},
        items={},
        dedup=None,
        lineage=None,
        lineage_hosts=False,
        retention_days=None,
        controller=None,
        contact=None,
        purpose=None,
        legal_basis=None,
        recipients=None,
        transfers=None,
        data_protection_officer=None,
        query=None,
        source=None,
        age_edges=(18, 25, 35, 50),
        min_age_range=5,
        columns={},
        row_model=None,
        formulas="escape",
        opt_in_column="training_data_opt_in",
        opt_out_column="training_data_opt_out",
        key_file=None,
        retired_keys=None,
    )


def test_flags_that_are_none_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    """An omitted option does not hide the environment."""
    monkeypatch.setenv("FEEDBACK_ETL_OUTPUT_DIR", "elsewhere")
    assert load_settings(output_dir=None).output_dir == Path("elsewhere")


def test_empty_variables_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compose files and CI often set variables to an empty string."""
    for name in ("FEEDBACK_ETL_DATABASE_URL", "FEEDBACK_ETL_CONNECT_TIMEOUT", "FEEDBACK_ETL_OUTPUT_DIR"):
        monkeypatch.setenv(name, "")
    monkeypatch.setenv("DATABASE_URL", "common")
    assert url() == "common"
    assert load_settings().connect_timeout == 2.0


def test_variables_of_other_programs_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the names of settings are read."""
    monkeypatch.setenv("FEEDBACK_ETL_TEST_POSTGRES_URL", "x")
    monkeypatch.setenv("OUTPUT_DIR", "x")
    assert load_settings().output_dir == Path("ml/feedback_training")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[project]\nname = 'feedback-etl-user'",
        "tool = 'feedback-etl'",
        "[tool.ruff]\n# feedback-etl",
        "not = = toml",
    ],
)
def test_pyproject_without_our_table_is_ignored(text: str) -> None:
    """Also one that is not TOML and does not contain the name of the table."""
    write("pyproject.toml", text)
    assert url() is None


def test_settings_file_hides_pyproject() -> None:
    """Only one file is read, so the source of a setting is unambiguous."""
    write("feedback-etl.toml", "")
    write("pyproject.toml", '[tool.feedback-etl]\ndatabase_url = "project"')
    assert url() is None


@pytest.mark.parametrize("name", ["feedback-etl.toml", "pyproject.toml"])
def test_invalid_toml_is_refused(name: str) -> None:
    """The message does not quote the invalid line, which may contain the password."""
    write(name, f'[tool.feedback-etl]\ndatabase_url = "{CANARY}')
    assert refused() == f"The settings file {name} is not valid TOML (at line 2, column 28)."
    write(name, f'[tool.feedback-etl]\nk = = "{CANARY}"')
    assert refused() == f"The settings file {name} is not valid TOML (at line 2, column 5)."


def test_file_that_is_not_utf8_is_refused() -> None:
    """TOML is UTF-8."""
    Path("feedback-etl.toml").write_bytes(f'database_url = "{CANARY}\xfc"'.encode("latin-1"))
    position = "at line 1, column 28, which is not UTF-8"
    assert refused() == f"The settings file feedback-etl.toml is not valid TOML ({position})."


@pytest.mark.parametrize("name", ["feedback-etl.toml", "pyproject.toml"])
def test_unreadable_file_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its settings would be ignored silently; also if the working directory cannot be searched."""
    load_settings()  # imports what only this user may read
    with without_privileges() as own:
        monkeypatch.chdir(own)
        write(name, "[tool.feedback-etl]\nk = 5")
        Path(name).chmod(0o000)
        messages = [refused()]
        own.chmod(0o000)
        messages.append(refused())
        own.chmod(0o700)
    remedy = "Make it readable, or run the command in another directory."
    assert messages == [
        f"The settings file {file} in the working directory cannot be read: Permission denied. {remedy}"
        for file in (name, "feedback-etl.toml")
    ]


def test_dangling_link_as_settings_file_is_refused() -> None:
    """Its target may be on a disk that is not mounted."""
    Path("feedback-etl.toml").symlink_to("not mounted")
    assert "feedback-etl.toml in the working directory cannot be read: it is a dangling symbolic link." in refused()


@only_root
@pytest.mark.parametrize("name", ["feedback-etl.toml", "pyproject.toml"])
@pytest.mark.parametrize("mode", [0o666, 0o646, 0o664])
def test_settings_file_that_others_can_write_is_refused(name: str, mode: int) -> None:
    """They could name code to run, another key and weaker limits. The printed command makes the file usable."""
    write(name, "[tool.feedback-etl]\nk = 5" if name == "pyproject.toml" else "k = 5")
    Path(name).chmod(mode)
    os.chown(name, -1, OTHERS)
    message = refused()
    assert message == f"Other users can write to the settings file {name}, so it is not used. Fix it: chmod go-w {name}"
    subprocess.run(shlex.split(message.partition("Fix it: ")[2]), check=True)
    assert load_settings().k == 5


def test_group_of_this_user_alone_may_write() -> None:
    """Many distributions give each user a group of the same name, and a umask of 002."""
    write("feedback-etl.toml", "k = 5")
    os.chown("feedback-etl.toml", -1, os.getgid())
    Path("feedback-etl.toml").chmod(0o664)
    assert load_settings().k == 5


@only_root
@pytest.mark.parametrize("name", ["feedback-etl.toml", "pyproject.toml"])
def test_settings_file_of_another_user_is_refused(name: str) -> None:
    """Such as one in a shared folder; only root can give a file away."""
    write(name, "[tool.feedback-etl]\nk = 5" if name == "pyproject.toml" else "k = 5")
    os.chown(name, OTHERS, -1)
    assert "belongs to another user, so it is not used" in refused()


@only_root
def test_link_of_another_user_to_a_settings_file_is_refused() -> None:
    """It can select any file of this user."""
    write("mine.toml", "k = 5")
    Path("feedback-etl.toml").symlink_to("mine.toml")
    assert load_settings().k == 5
    os.chown("feedback-etl.toml", OTHERS, -1, follow_symlinks=False)
    assert "belongs to another user, so it is not used" in refused()


@only_root
@pytest.mark.parametrize("how", ["owner", "link", "mode"])
def test_row_model_of_another_user_is_not_run(how: str) -> None:
    """It is code."""
    write("checks.py", "open('ran', 'w').close()")
    name = "checks.py"
    if how == "link":
        name = "linked.py"
        Path(name).symlink_to("checks.py")
    if how == "mode":
        Path(name).chmod(0o666)
    else:
        os.chown(name, OTHERS, -1, follow_symlinks=False)
    reason = f"Other users can write to the row model {name}"
    with pytest.raises(UsageError, match=reason if how == "mode" else f"The row model {name} belongs to another user"):
        load_settings(row_model=f"{name}:Model").to_options()
    assert not Path("ran").exists()


SOURCE = {"feedback_id": "id", "user_id": "user_id", "created_at": "created_at"}


@only_root
@pytest.mark.parametrize("how", ["owner", "mode"])
@pytest.mark.parametrize("source", [{}, {"source": dict(SOURCE, query="q.sql")}], ids=["query", "source"])
def test_query_file_of_another_user_is_not_used(how: str, source: dict[str, Any]) -> None:
    """It decides which rows and columns are exported, and whose pseudonyms they have."""
    write("q.sql", "SELECT 1")
    settings = load_settings(**source or {"query": "q.sql"})
    if how == "mode":
        Path("q.sql").chmod(0o666)
    else:
        os.chown("q.sql", OTHERS, -1)
    reason = "Other users can write to the query file q.sql" if how == "mode" else "query file q.sql belongs to another"
    for read in (settings.to_options, settings.to_database_keywords):
        with pytest.raises(UsageError, match=reason):
            read()


@only_root
def test_project_file_of_another_user_without_settings_is_ignored() -> None:
    """It configures nothing."""
    write("pyproject.toml", '[project]\nname = "feedback-etl-user"')
    os.chown("pyproject.toml", OTHERS, -1)
    assert load_settings().k is None


def test_pipe_as_settings_file_is_refused() -> None:
    """Reading it would wait for ever."""
    os.mkfifo("feedback-etl.toml")
    assert "cannot be read: it is not a regular file" in refused()


def test_project_table_that_is_no_table_is_refused() -> None:
    """Such as `feedback-etl = "..."` below [tool]."""
    write("pyproject.toml", f'[tool]\nfeedback-etl = "{CANARY}"')
    assert refused() == "In pyproject.toml, tool.feedback-etl must be a table: [tool.feedback-etl]."


@pytest.mark.parametrize("name", ["key", "FEEDBACK_ETL_KEY", "password"])
def test_unknown_setting_is_refused(name: str) -> None:
    """Above all a key, which belongs in a separate file. The message is short and helpful."""
    write("feedback-etl.toml", f'# it is here\n{name} = "{CANARY}"')
    assert refused() == (
        f"The settings are invalid: {name} is not a setting (feedback-etl.toml, line 2). "
        "Remove unknown settings: `feedback-etl config` then lists all settings."
    )
    Path("feedback-etl.toml").write_text("")
    lines = CliRunner().invoke(app, ["config"]).stdout.splitlines()
    assert {line.split()[0] for line in lines} >= {*Settings.model_fields}


def test_several_similar_names_are_suggested() -> None:
    """The most similar one first."""
    write("feedback-etl.toml", "conect_timeout = 3")
    assert "conect_timeout is not a setting (did you mean connect_timeout" in refused()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[ratings.stars]\nmn = 1", "ratings.stars.mn is not a setting (did you mean min?)"),
        ("[source]\nitem_id = 'a'", "source.item_id is not a setting (declare what was rated as [columns.NAME] with "),
        ("[source.join]\ntabel = 'a'", "source.join.tabel is not a setting (did you mean table?)"),
        ("[source]\nuser = 'a'", "source.user is not a setting (did you mean user_id"),
        ("[columns.a]\nzzz = 1", "columns.a.zzz is not a setting (feedback-etl.toml, line 2)"),
    ],
)
def test_misspelled_key_of_a_table_suggests_keys_of_that_table(text: str, message: str) -> None:
    """No setting of another table."""
    write("feedback-etl.toml", text)
    assert message in refused()


def test_misspelled_setting_suggests_the_nearest_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the file and in the environment; a misspelled variable would have no effect."""
    write("feedback-etl.toml", f'outputdir = "{CANARY}"')
    monkeypatch.setenv("FEEDBACK_ETL_KEY_FIEL", CANARY)
    monkeypatch.setenv("FEEDBACK_ETL_SOMETHING", CANARY)
    message = refused()
    assert "outputdir is not a setting (did you mean output_dir?) (feedback-etl.toml, line 1)" in message
    assert "FEEDBACK_ETL_KEY_FIEL is not a setting (did you mean key_file?)" in message
    assert (
        "FEEDBACK_ETL_SOMETHING is not a setting;" in message or "FEEDBACK_ETL_SOMETHING is not a setting." in message
    )


@pytest.mark.parametrize("name", ["QUASI_IDENTIFIERS", "AGE_EDGES", "COLUMNS"])
@pytest.mark.parametrize("value", ["age_range,timeframe", "[", CANARY])
def test_lists_and_tables_are_json_in_the_environment(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    """The message names the variable."""
    monkeypatch.setenv(f"FEEDBACK_ETL_{name}", value)
    message = refused()
    assert f"FEEDBACK_ETL_{name} must be a list or a table in JSON" in message


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        (f'connect_timeout = "{CANARY}"', "connect_timeout should be a valid number"),
        ("k = 1001", "k should be less than or equal to 1000"),
        ("connect_timeout = 0", "connect_timeout should be greater than 0"),
        ("connect_timeout = 61", "connect_timeout should be less than or equal to 60"),
        (f'output_dir = ["{CANARY}"]', "output_dir is not a valid path"),
        (f'database_url = {{ password = "{CANARY}" }}', "database_url should be a valid string"),
        (f'db_schema = ["{CANARY}"]', "db_schema should be a valid string"),
    ],
)
def test_invalid_value_is_refused_with_the_name_of_the_setting(line: str, fault: str) -> None:
    """The message describes the problem without the value."""
    write("feedback-etl.toml", line)
    assert refused().startswith(f"The settings are invalid: {fault}")


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize(
    ("lines", "position"),
    [
        (["", "k = 0  # too few"], "feedback-etl.toml, line 2"),
        (["age_edges = [18,", "# and", "25]", "", "k = 0"], "feedback-etl.toml, line 5"),
        (["[columns.country]", 'type = "text"', "", 'role = "' + CANARY + '"'], "feedback-etl.toml, line 4"),
        (['text = """', "k = 1", '"""', "k = 0"], "feedback-etl.toml, line 4"),
    ],
)
def test_invalid_value_is_located_in_the_file(lines: list[str], position: str, newline: str) -> None:
    """By the line at which the setting begins."""
    Path("feedback-etl.toml").write_text(newline.join(lines), newline="")
    assert f"({position})" in refused()


def test_invalid_value_is_located_in_pyproject_and_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable takes precedence over the file, as its value does."""
    write("pyproject.toml", "[project]\nk = 1\n[tool.feedback-etl]\nk = 0")
    assert "k should be greater than or equal to 1 (pyproject.toml, line 4)" in refused()
    monkeypatch.setenv("FEEDBACK_ETL_K", "0")
    assert "k should be greater than or equal to 1 (FEEDBACK_ETL_K)" in refused()


_SERVICE_LINKS = {
    "SERVICE_HOST": "10.96.0.11",
    "SERVICE_PORT": "80",
    "SERVICE_PORT_HTTP": "80",
    "PORT": "tcp://10.96.0.11:80",
    "PORT_80_TCP": "tcp://10.96.0.11:80",
    "PORT_80_TCP_PROTO": "tcp",
    "PORT_80_TCP_PORT": "80",
    "PORT_80_TCP_ADDR": "10.96.0.11",
}
"""What Kubernetes injects for each Service of the namespace, after the Service's name."""


@pytest.mark.parametrize("service", ["FEEDBACK_ETL", "FEEDBACK_ETL_API"])
def test_variables_that_kubernetes_injects_for_a_service_are_ignored(
    monkeypatch: pytest.MonkeyPatch, service: str
) -> None:
    """For a Service named feedback-etl they begin like settings."""
    for name, value in _SERVICE_LINKS.items():
        monkeypatch.setenv(f"{service}_{name}", value)
    monkeypatch.setenv(f"{service}_PORT_53_UDP", "udp://[fd00::11]:53")
    assert load_settings().k is None
    monkeypatch.setenv("FEEDBACK_ETL_KEY_FIEL", "x")
    assert "FEEDBACK_ETL_KEY_FIEL is not a setting" in refused()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "5432"),
        ("PORT_80_TCP", "80"),
        ("PORT_TCP", "tcp://10.96.0.11:80"),
        ("SERVICE", "x"),
        ("SERVICE_HOSTS", "x"),
        ("SERVICE_PORT", CANARY),
        ("DATABASE_PORT", "5432"),
        ("QUERY_FILE", "tcp://10.96.0.11:80"),
    ],
)
def test_similar_variables_are_refused(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    """A misspelled setting would have no effect."""
    monkeypatch.setenv(f"FEEDBACK_ETL_{name}", value)
    assert f"FEEDBACK_ETL_{name} is not a setting" in refused()


def test_all_problems_are_reported_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """From the file and from the environment."""
    write("feedback-etl.toml", f'one = "{CANARY}"\ntwo = 2')
    monkeypatch.setenv("FEEDBACK_ETL_CONNECT_TIMEOUT", CANARY)
    message = refused()
    assert all(
        fault in message for fault in ("one is not a setting", "two is not a setting", "connect_timeout should be")
    )


def test_the_database_url_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may contain a password."""
    monkeypatch.setenv("DATABASE_URL", f"postgresql://user:{CANARY}@host/app")
    assert CANARY not in f"{load_settings()} {load_settings()!r} {load_settings().model_dump()}"


def test_validation_error_of_the_model_hides_the_value() -> None:
    """Also where `Settings` is used without `load_settings`."""
    with pytest.raises(ValidationError) as caught:
        Settings.model_validate({"connect_timeout": CANARY})
    assert CANARY not in str(caught.value)
