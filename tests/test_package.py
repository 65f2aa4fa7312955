"""The wheel: its content, and that it works without the source tree."""

import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from processes import feedback_etl

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build a wheel from the source tree."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "--wheel-dir", str(folder), str(ROOT)], check=True, capture_output=True)
    return next(folder.glob("*.whl"))


def test_wheel_contains_the_package_and_its_licence(wheel: Path) -> None:
    """It contains type information, the licence, and nothing but the package."""
    names = zipfile.ZipFile(wheel).namelist()
    assert "feedback_etl/py.typed" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert {name.split("/")[0].split("-")[0] for name in names} == {"feedback_etl"}
    notebooks = {path.name for path in (ROOT / "notebooks").glob("*.ipynb")}
    assert {name.rpartition("/")[2] for name in names if name.startswith("feedback_etl/notebooks/")} == notebooks


def test_wheel_exports_without_the_source_tree(wheel: Path, tmp_path: Path) -> None:
    """Unpacked elsewhere, the command's module runs the demo."""
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "site")}
    import_command = [sys.executable, "-c", "import feedback_etl; print(feedback_etl.__file__)"]
    imported = subprocess.run(import_command, env=environment, capture_output=True, text=True, check=True)
    assert imported.stdout.startswith(str(tmp_path / "site"))
    command = [sys.executable, "-m", "feedback_etl", "demo", "--rows", "500"]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "exported" in result.stderr
    for subcommand, pattern, folder in (("notebooks", "*.ipynb", "notebooks"), ("contracts", "*.sql", "schemas")):
        copy = [sys.executable, "-m", "feedback_etl", subcommand, "copies"]
        subprocess.run(copy, env=environment, capture_output=True, text=True, check=True)
        expected = {path.name for path in (ROOT / folder).glob(pattern)}
        assert {path.name for path in Path("copies").glob(pattern)} == expected


def test_notebooks_are_never_replaced() -> None:
    """Somebody may have worked in them."""
    assert feedback_etl("notebooks", "mine").returncode == 0
    Path("mine/quickstart.ipynb").write_text("my work", encoding="utf-8")
    result = feedback_etl("notebooks", "mine")
    assert result.returncode == 5
    assert "quickstart.ipynb" in result.stderr
    assert Path("mine/quickstart.ipynb").read_text(encoding="utf-8") == "my work"


def test_containerfile_has_no_finding_of_hadolint() -> None:
    """And the source tree has what it copies. No test builds the image: that needs a registry."""
    lines = (ROOT / "Containerfile").read_text(encoding="utf-8").splitlines()
    copied = [name for line in lines if re.match(r"COPY [^-]", line) for name in line.split()[1:-1]]
    assert copied
    assert [name for name in copied if not (ROOT / name).exists()] == []
    hadolint = Path(sys.executable).with_name("hadolint")
    if not hadolint.exists():
        pytest.skip("hadolint has no wheel for this platform")
    result = subprocess.run([hadolint, ROOT / "Containerfile"], capture_output=True, text=True, check=False)
    assert result.stdout + result.stderr == ""
