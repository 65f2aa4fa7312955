"""Configuration of the documentation site: `make docs` builds it with Sphinx into `docs/_build/html`."""

import re
from pathlib import Path

from pygments.lexers.special import TextLexer
from sphinx.application import Sphinx

import feedback_etl

project = "feedback_etl"
author = "The feedback_etl authors"
release = version = feedback_etl.__version__
language = "en"

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]
exclude_patterns = ["_build"]
default_role = "code"  # docstrings quote names with single backticks

myst_heading_anchors = 3

autodoc_member_order = "alphabetical"
autodoc_typehints_format = "short"
napoleon_numpy_docstring = False
napoleon_use_ivar = True

html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_title = f"feedback_etl {release}"
html_show_copyright = False
html_show_sourcelink = False
html_copy_source = False


ROOT = Path(__file__).parent.parent
COPIES = {
    "reference/results": "benchmarks/RESULTS.md",
    "reference/many_workers": "benchmarks/MANY_WORKERS.md",
    "reference/changelog": "CHANGELOG.md",
}
"""Pages that are files outside `docs/`. A reader of the repository follows a link to the file instead."""


def _replace_links(app: Sphinx, docname: str, source: list[str]) -> None:  # noqa: ARG001
    """Replace a page of `COPIES` by its file, and links to such files by links to their pages."""
    if docname in COPIES:
        source[0] = (ROOT / COPIES[docname]).read_text(encoding="utf-8")
    for page, path in COPIES.items():
        name = path.rpartition("/")[2]
        source[0] = re.sub(rf"\]\((?:\.\./)*(?:benchmarks/)?{name}", f"](/{page}.md", source[0])


def _convert_tables(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:  # noqa: ARG001, PLR0913
    """Convert the Markdown tables of docstrings to those of reStructuredText."""
    converted = []
    for number, line in enumerate(lines):
        if not line.startswith("|"):
            converted.append(line)
        elif not set(line) <= set("|-: "):
            if not lines[number - 1].startswith("|"):
                converted += [".. list-table::", "   :header-rows: 1", ""]
            first, *others = (cell.strip() for cell in re.split(r"\s\|(?=\s)", line.strip().strip("|")))
            converted += [f"   * - {first}", *(f"     - {cell}" for cell in others)]
    lines[:] = converted


def setup(app: Sphinx) -> None:
    """Register what Sphinx does not know."""
    app.add_lexer("cron", TextLexer)
    app.connect("source-read", _replace_links)
    app.connect("autodoc-process-docstring", _convert_tables)
