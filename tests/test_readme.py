"""Execute README and docs/: their blocks run in order, and the output shown is the output of a real run."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from processes import feedback_etl

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
DOCS = sorted((ROOT / "docs").rglob("*.md"))
TUTORIALS = [path for path in DOCS if path.parent.name == "tutorials"]
TEXT = "\n".join(path.read_text(encoding="utf-8") for path in (README, *DOCS))
COMMANDS = ROOT / "docs" / "commands.md"


def read_blocks(language: str, path: Path = README) -> list[str]:
    """Return the code blocks of a language in their order."""
    return re.findall(rf"^```{language}\n(.*?)^```$", path.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def test_every_block_is_one_of_those_that_are_tested() -> None:
    """Commands and Python run; the output, settings, SQL and times of runs are compared, each by a test of its page.

    All begin at the margin, where `read_blocks` finds them.
    """
    fences = re.findall(r"^(.*?)(?:```|~~~)(\S*)$", TEXT, re.MULTILINE)
    assert {margin for margin, _ in fences} == {""}
    assert {language for _, language in fences} == {
        "",
        "sh",
        "python",
        "text",
        "toml",
        "sql",
        "cron",
        "{eval-rst}",
        "{toctree}",
    }


def run(*command: str) -> subprocess.CompletedProcess[str]:
    """Run a command with this environment's scripts first on the path."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "PYTHONWARNINGS": "error"}
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


def get_labels(text: str) -> list[str]:
    """Return the first word of every line, with numbers and hashes replaced."""
    return [re.sub(r"[0-9a-f]*\d[0-9a-f]*", "N", line.split(" ")[0]) for line in text.splitlines() if line.strip()]


@pytest.fixture
def demo() -> subprocess.CompletedProcess[str]:
    """Run the demo in the working directory."""
    result = feedback_etl("demo")
    assert result.returncode == 0, result.stderr
    return result


def test_commands_of_the_readme_are_make_targets() -> None:
    """`make demo` and `make test` exist, and `make demo` runs the documented command."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    commands = re.findall(r"^make (\w+)", read_blocks("sh")[0], re.MULTILINE)
    assert commands == ["demo", "test"]
    for command in commands:
        assert re.search(rf"^{command}:", makefile, re.MULTILINE)
    assert "feedback-etl demo\n" in makefile


def test_output_in_the_readme_equals_a_run(demo: subprocess.CompletedProcess[str]) -> None:
    """The sample run in README has the lines of a real one; figures differ, since the demo's window moves."""
    shown = read_blocks("text")[0]
    introduction, _, rest = demo.stderr.partition("\n\n")
    assert introduction.startswith("The demo creates feedback_demo/feedback.db, ")
    messages = rest.partition("\nNext, for example:\n")[0].splitlines()
    reasons = {line.split()[-1] for line in messages if line.startswith("   ")}
    assert reasons <= set(re.findall(r"[a-z_]+", shown))
    shown_messages = shown.partition("\n\nanalysis_hash")[0]
    ignored = {"", *reasons}
    assert [x for x in get_labels(shown_messages) if x not in ignored] == [
        x for x in get_labels("\n".join(messages)) if x not in ignored
    ]
    header, *rows = demo.stdout.splitlines()
    assert header in shown
    assert len(rows) == 5


@pytest.fixture
def demo_in_use(demo: subprocess.CompletedProcess[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Prepare what README describes: the demo is the database, and there is a key."""
    monkeypatch.setenv("FEEDBACK_ETL_DATABASE_URL", "sqlite:///feedback_demo/feedback.db")
    assert feedback_etl("keys", "new").returncode == 0


def assert_commands_run(commands: list[str]) -> None:
    """Run commands one after the other, as one script."""
    assert commands
    result = run("bash", "-c", "set -euo pipefail\n" + "\n".join(commands))
    assert result.returncode == 0, result.stderr


@pytest.mark.slow
def test_shell_commands_of_the_readme_run(demo: subprocess.CompletedProcess[str]) -> None:
    """All blocks but the first succeed in this order: create a key, preview, export."""
    assert_commands_run(read_blocks("sh")[1:])
    assert len(list(Path("ml/feedback_training").glob("feedback_training_*.csv"))) == 1


@pytest.mark.slow
@pytest.mark.usefixtures("demo_in_use")
@pytest.mark.parametrize(
    "path", [path for path in DOCS if path not in TUTORIALS and read_blocks("sh", path)], ids=lambda path: path.stem
)
def test_shell_commands_of_the_docs_run(path: Path) -> None:
    """Each document is run by itself."""
    assert_commands_run(read_blocks("sh", path))


def test_python_blocks_of_the_readme_run(
    demo: subprocess.CompletedProcess[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Run README, then the first blocks of the training and integrations documents, as one program."""
    assert feedback_etl("keys", "new").returncode == 0
    documents = [read_blocks("python", ROOT / "docs" / name)[0] for name in ("training.md", "integrations.md")]
    exec(compile("\n".join(read_blocks("python") + documents), README.name, "exec"), {})
    exported, loaded = capsys.readouterr().out.splitlines()[0].split()
    assert exported == loaded
    assert int(exported) > 0


@pytest.mark.slow
@pytest.mark.usefixtures("demo_in_use")
@pytest.mark.parametrize(
    "path", [path for path in DOCS if path not in TUTORIALS and read_blocks("python", path)], ids=lambda path: path.stem
)
def test_python_blocks_of_the_docs_run(path: Path) -> None:
    """Each document is run by itself."""
    result = run(sys.executable, "-c", "\n".join(read_blocks("python", path)))
    assert result.returncode == 0, result.stderr


@pytest.mark.slow
@pytest.mark.parametrize("path", TUTORIALS, ids=lambda path: path.stem)
def test_tutorials_run(path: Path, demo: subprocess.CompletedProcess[str]) -> None:
    """The commands of a tutorial run in their order, then its Python blocks as one program."""
    assert feedback_etl("keys", "new").returncode == 0
    program = "\n".join(read_blocks("python", path))
    assert_commands_run([*read_blocks("sh", path), f"python - <<'END'\n{program}\nEND"])


def test_tutorial_of_an_own_schema_has_the_files_of_the_example() -> None:
    """The example itself is run by its tests."""
    tutorial = (ROOT / "docs" / "tutorials" / "own-schema.md").read_text(encoding="utf-8")
    for name in ("feedback.sql", "feedback-etl.toml"):
        assert (ROOT / "examples" / "own_schema" / name).read_text(encoding="utf-8") in tutorial


def test_documented_settings_file_is_accepted() -> None:
    """It contains every setting."""
    documented = read_blocks("toml", COMMANDS)[0]
    Path("feedback-etl.toml").write_text(documented, encoding="utf-8")
    from feedback_etl.settings.model import Settings, load_settings

    settings = load_settings()
    assert settings.db_schema == "skincare"
    assert settings.feedback_schema.training_columns[1:4] == ("stars", "tags", "country")
    assert tomllib.loads(documented).keys() == Settings.model_fields.keys()


def test_every_reason_and_exit_code_is_documented() -> None:
    """The docs name each reason for a rejection (or its ending) and each exit code."""
    from feedback_etl.errors import FeedbackError
    from feedback_etl.transform.raw_schema import REASONS

    for reason in REASONS:
        ending = re.sub(r"^(helpful_rating|product_satisfaction|routine_completion_pct|age)_", "..._", reason)
        assert f"`{reason}`" in TEXT or f"`{ending}`" in TEXT, reason
    codes = {error.exit_code for error in FeedbackError.__subclasses__()} | {0, 1}
    assert codes == {int(code) for code in re.findall(r"^\| (\d) \|", TEXT, re.MULTILINE)}


def test_every_public_name_is_documented() -> None:
    """README or the docs name each function for a first script."""
    for name in ("export_feedback", "load_training", "load_feedback", "split_valid", "anonymize", "deduplicate"):
        assert name in TEXT


def test_documented_paths_exist() -> None:
    """A path that README or the docs name is in the repository."""
    named = re.findall(r"`((?:examples|schemas|notebooks|tests)/[\w./]+\.\w+)`", TEXT)
    assert named
    for path in named:
        assert (ROOT / path).is_file(), path


def test_files_and_names_in_contributing_exist() -> None:
    """Each file of "Where things are" exists, and one of the files of its row defines each name."""
    text = (
        (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").partition("## Where things are")[2].partition("\n## ")[0]
    )
    answers = [line for line in text.splitlines() if re.match(r"\| (Where|What|Which) .*\?", line)]
    assert len(answers) >= 7
    recipe = text.partition("**To add a numeric rating column**")[2].partition("Then run")[0]
    assert "`TrainingPair`" in recipe
    for answer in [*answers, recipe.replace("feedback_etl/", "")]:
        paths = re.findall(r"`([a-z_/]+\.py)`", answer)
        files = [ROOT / path if path.startswith("tests/") else ROOT / "feedback_etl" / path for path in paths]
        code = "\n".join(file.read_text(encoding="utf-8") for file in files)
        for name in re.findall(r"`(\w+)`", answer):
            assert re.search(rf"^(class|def) {name}\b|^{name}\b.* = ", code, re.MULTILINE), name


@pytest.mark.parametrize("path", [README, *DOCS], ids=lambda path: path.stem)
def test_links_have_targets(path: Path) -> None:
    """Each leads to a file of the repository and a heading in it; README links to each document of `docs/` itself."""
    links = re.findall(r"\]\((?!https:)([^)]*)\)", path.read_text(encoding="utf-8"))
    for link in links:
        name, _, anchor = link.partition("#")
        target = path.parent / name if name else path
        headings = re.findall(r"^#+ (.*)$", target.read_text(encoding="utf-8"), re.MULTILINE)
        assert not anchor or anchor in {heading.lower().replace(" ", "-") for heading in headings}, link
    if path == README:
        assert {f"docs/{document.name}" for document in (ROOT / "docs").glob("*.md")} <= {
            link.partition("#")[0] for link in links
        }


def test_documented_crontab_equals_the_example() -> None:
    """The example is executed by a test."""
    assert read_blocks("cron", ROOT / "docs" / "integrations.md") == [
        (ROOT / "examples" / "crontab").read_text(encoding="utf-8")
    ]


def test_documented_subclass_gives_the_documented_labels() -> None:
    """The vocabulary of the document has the same labels."""
    path = ROOT / "docs" / "integrations.md"
    code = read_blocks("python", path)[-1]
    namespace: dict[str, Any] = {}
    exec(code, namespace)
    bucket_age = namespace["GenerationProcessor"]("sqlite://")._bucket_age
    shown = re.findall(r"age_ranges=\((.*?)\)", path.read_text(encoding="utf-8"))
    documented_labels = [label.strip('"') for label in shown[0].split(", ")]
    assert [bucket_age(age) for age in (None, 29, 30, 60)] == [None, *documented_labels]
