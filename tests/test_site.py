"""The documentation site builds without a warning, and its reference is complete."""

import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import feedback_etl as fe

DOCS = Path(__file__).parent.parent / "docs"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the site; a broken link, a page in no menu or a docstring that cannot be rendered is an error."""
    target = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "--fail-on-warning", "--quiet", str(DOCS), str(target)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return target


def test_every_page_is_in_the_site(site: Path) -> None:
    pages = [path.relative_to(DOCS).with_suffix(".html") for path in DOCS.rglob("*.md") if "_build" not in path.parts]
    assert len(pages) > 20
    assert [page for page in pages if not (site / page).is_file()] == []


def test_links_within_the_site_have_targets(site: Path) -> None:
    """Also those that Sphinx does not check, such as links to headings."""
    broken = []
    for page in site.rglob("*.html"):
        for link in re.findall(r'href="([^"]+)"', page.read_text(encoding="utf-8")):
            name, _, anchor = link.partition("#")
            if "://" in link or link.startswith("mailto:"):
                continue
            target = (page.parent / name.partition("?")[0]) if name else page
            if not target.exists() or (anchor and f'id="{anchor}"' not in target.read_text(encoding="utf-8")):
                broken.append(f"{page.relative_to(site)}: {link}")
    assert broken == []


def test_the_reference_has_every_public_name(site: Path) -> None:
    text = (site / "reference" / "api.html").read_text(encoding="utf-8")
    packages = [fe, fe.training, fe.privacy, fe.exports, fe.report, fe.transform]
    names = {
        f"{package.__name__}.{name}"
        for package in packages
        for name in package.__all__
        if not isinstance(getattr(package, name), ModuleType | str)
    }
    assert {name for name in names if f'id="{name}"' not in text} == set()


def test_the_site_loads_nothing_from_other_hosts(site: Path) -> None:
    """A reader without a network sees the whole site, and no other host sees a reader."""
    loaded = re.compile(r'<(?:script|link|img|iframe)[^>]*(?:src|href)="(?:https?:)?//[^"]+"')
    pages = {path.name: loaded.findall(path.read_text(encoding="utf-8")) for path in site.rglob("*.html")}
    assert {name: found for name, found in pages.items() if found} == {}
