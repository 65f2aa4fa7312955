"""Load a custom pandera model by its name: `module:Model` or `folder/file.py:Model`."""

import copy
import importlib
import runpy
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from feedback_etl.errors import UsageError

if TYPE_CHECKING:
    from feedback_etl.transform.failure_cases import Model


def load_model(name: str) -> "Model":
    """Load a model; this runs its file or imports its module. A schema gets the name by which it is loaded.

    Raises:
        UsageError: The file, module or model does not exist, fails to load, or is not a model of `pandera.polars`.

    >>> load_model("feedback_etl.transform.training_schema:TrainingPair").__name__
    'TrainingPair'
    """
    with suppress(ImportError):  # the file may use pandera's schemas of pandas frames: import pandas before pandera
        import pandas  # noqa: F401
    import pandera.polars as pa

    location, _, attribute = name.rpartition(":")
    if not location:
        raise UsageError(f"{name} does not name a row model: use the form checks.py:Model or package.module:Model.")
    model = _load_names(location).get(attribute)
    if isinstance(model, pa.DataFrameSchema):
        named = copy.copy(model)
        named.name = attribute
        return named
    if isinstance(model, type) and issubclass(model, pa.DataFrameModel):
        return model
    raise UsageError(f"{location} has no pandera model {attribute} (pandera.polars.DataFrameModel or DataFrameSchema).")


def _load_names(location: str) -> dict[str, Any]:
    is_file = location.endswith(".py")
    with suppress(PermissionError):  # reported below, when the file cannot be loaded
        if is_file and not Path(location).is_file():
            raise UsageError(f"There is no file {location} with a model.")
    try:
        return runpy.run_path(location) if is_file else vars(importlib.import_module(location))
    except (Exception, SystemExit) as error:
        error_type = type(error).__name__
    raise UsageError(f"{location} could not be loaded ({error_type}); run it with Python to see why.")
