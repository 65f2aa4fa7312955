"""Hide pandas from pandera, in processes that run one command.

Where pandas is installed, pandera imports it for its schemas of pandas frames, which takes four times as long as the
rest of pandera. The schemas of Polars frames work without it: pandera supports installations without pandas.
"""

import sys
from importlib.abc import MetaPathFinder


class _PandasHider(MetaPathFinder):
    """Let imports of pandas by pandera fail, as where pandas is not installed."""

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> None:  # noqa: ARG002
        """Raise if pandera imports pandas; leave every other import to the finders that follow."""
        if fullname == "pandas" and _find_importer().startswith("pandera"):
            raise ModuleNotFoundError("No module named 'pandas'", name="pandas")


def _find_importer() -> str:
    """Return the name of the module whose import statement is being executed."""
    frame = sys._getframe(2)  # of the import system
    while frame.f_back and frame.f_globals.get("__name__", "").startswith("importlib"):
        frame = frame.f_back
    return str(frame.f_globals.get("__name__", ""))


def hide_pandas_from_pandera() -> None:
    """Let pandera find no pandas in this process, unless pandas is imported before pandera."""
    sys.meta_path.insert(0, _PandasHider())
