"""Configuration of the documentation site: `make docs` builds it with Sphinx into `docs/_build/html`."""

import feedback_etl

project = "feedback_etl"
author = "The feedback_etl authors"
release = version = feedback_etl.__version__
language = "en"

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]
exclude_patterns = ["_build"]
nitpicky = False

myst_heading_anchors = 3
myst_enable_extensions = ["colon_fence"]

autodoc_member_order = "alphabetical"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
napoleon_google_docstring = True
napoleon_numpy_docstring = False

html_theme = "furo"
html_title = f"feedback_etl {release}"
html_show_sourcelink = False
html_copy_source = False
