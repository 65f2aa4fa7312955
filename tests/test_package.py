"""The wheel: its content, and that it works without the source tree."""

import json
import re
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version
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


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the wheel in an environment of its own, which shares the dependencies of this one; nothing is loaded.

    Returns the folder of its programs.
    """
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    python = folder / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-index", "--no-deps"]
    subprocess.run([*pip, str(wheel)], check=True, capture_output=True)
    (site,) = folder.glob("lib/python*/site-packages")
    dependencies = sysconfig.get_paths()["purelib"]  # whose .pth files, that of the source tree too, have no effect
    (site / "dependencies.pth").write_text(f"{dependencies}\n", encoding="utf-8")
    return python.parent


def run(*command: str | Path) -> str:
    """Run a program in an empty folder, and return what it prints on both streams."""
    result = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout + result.stderr


def test_wheel_works_without_the_source_tree(installed: Path) -> None:
    """The installed command runs the demo, describes it, and copies notebooks and contracts."""
    command = installed / "feedback-etl"
    imported = run(installed / "python", "-c", "import feedback_etl; print(feedback_etl.__file__)")
    assert imported.startswith(str(installed.parent))
    assert "exported" in run(command, "demo", "--rows", "500")
    run(command, "report", "feedback_demo/exports", "-o", "report.html")
    for subcommand, pattern, folder in (("notebooks", "*.ipynb", "notebooks"), ("contracts", "*.*", "schemas")):
        run(command, subcommand, "-o", "copies")
        copies = {path.name: path.read_bytes() for path in Path("copies").glob(pattern)}
        originals = {path.name: path.read_bytes() for path in (ROOT / folder).glob(pattern)}
        assert {name: copies.get(name) for name in originals} == originals


def test_notebook_of_the_wheel_runs_without_the_source_tree(installed: Path) -> None:
    """Its cells run as one program, as those of the checkout do."""
    run(installed / "feedback-etl", "notebooks", "-o", "copies")
    cells = json.loads(Path("copies/quickstart.ipynb").read_text(encoding="utf-8"))["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    Path("quickstart.py").write_text("\n".join([*code, "print(fe.__file__)"]), encoding="utf-8")
    assert str(installed.parent) in run(installed / "python", "quickstart.py")


def test_notebooks_are_never_replaced() -> None:
    """Somebody may have worked in them."""
    assert feedback_etl("notebooks", "-o", "mine").returncode == 0
    Path("mine/quickstart.ipynb").write_text("my work", encoding="utf-8")
    result = feedback_etl("notebooks", "-o", "mine")
    assert result.returncode == 5
    assert "quickstart.ipynb" in result.stderr
    assert Path("mine/quickstart.ipynb").read_text(encoding="utf-8") == "my work"


def test_oldest_versions_are_the_lower_bounds() -> None:
    """`make test-oldest` tests each version that `pyproject.toml` allows at the least."""
    bounds = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]
    locked = (ROOT / "requirements" / "oldest.txt").read_text(encoding="utf-8")
    assert len(bounds) > 10
    for bound in map(Requirement, bounds):
        (least,) = bound.specifier
        pinned = re.search(rf"^{bound.name}(?:\[[a-z,]+\])?==([\d.]+) ", locked, re.MULTILINE)
        assert pinned, bound.name
        assert (least.operator, Version(pinned[1])) == (">=", Version(least.version)), bound.name


def test_containerfile_has_no_finding_of_hadolint() -> None:
    """And the source tree contains the files that it copies. No test builds the image: that needs a registry."""
    lines = (ROOT / "Containerfile").read_text(encoding="utf-8").splitlines()
    copied = [name for line in lines if re.match(r"COPY [^-]", line) for name in line.split()[1:-1]]
    assert copied
    assert [name for name in copied if not (ROOT / name).exists()] == []
    hadolint = Path(sys.executable).with_name("hadolint")
    if not hadolint.exists():
        pytest.skip("hadolint has no wheel for this platform")
    result = subprocess.run([hadolint, ROOT / "Containerfile"], capture_output=True, text=True, check=False)
    assert result.stdout + result.stderr == ""
