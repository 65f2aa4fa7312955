"""Public names of a package, imported when they are first used."""

import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any


def build_lazy_names(
    package: str, modules: Mapping[str, str], submodules: Sequence[str] = ()
) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """Return the `__getattr__`, `__dir__` and `__all__` of a package that imports its public names on first use.

    Importing the package then costs next to nothing. Type checkers see the names by imports under `TYPE_CHECKING`.

    Args:
        package: Name of the package.
        modules: Module that defines each name, relative to `feedback_etl`.
        submodules: Modules and packages in the package that are public, too.
    """
    public = sorted([*modules, *submodules])

    def get_attribute(name: str) -> Any:
        if name in submodules:
            return import_module(f"{package}.{name}")
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(import_module(f"feedback_etl.{modules[name]}"), name)
        setattr(sys.modules[package], name, value)
        return value

    return get_attribute, lambda: sorted(public), public
