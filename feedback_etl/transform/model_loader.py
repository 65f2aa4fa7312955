"""A pandera model of one's own, found by its name: `module:Model` or `folder/file.py:Model`."""

import importlib
import runpy
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from feedback_etl.errors import UsageError

if TYPE_CHECKING:
    from feedback_etl.transform.training_schema import Model


def load_model(name: str) -> "Model":
    """Load a model; its file or module is run.

    Raises:
        UsageError: There is no such file, module or model, or it fails to load, or is no model of `pandera.polars`.

    >>> load_model("feedback_etl.transform.training_schema:TrainingPair").__name__
    'TrainingPair'
    """
    import pandera.polars as pa

    place, _, attribute = name.rpartition(":")
    if not place:
        raise UsageError(f"{name} names no model; it looks like checks.py:Model or package.module:Model.")
    found = _names_of(place).get(attribute)
    if isinstance(found, pa.DataFrameSchema) or (isinstance(found, type) and issubclass(found, pa.DataFrameModel)):
        return found
    raise UsageError(f"{place} has no pandera model {attribute} (pandera.polars.DataFrameModel or DataFrameSchema).")


def _names_of(place: str) -> dict[str, Any]:
    is_file = place.endswith(".py")
    with suppress(PermissionError):  # it is told of below
        if is_file and not Path(place).is_file():
            raise UsageError(f"There is no file {place} with a model.")
    try:
        return runpy.run_path(place) if is_file else vars(importlib.import_module(place))
    except (Exception, SystemExit) as error:
        told = type(error).__name__
    raise UsageError(f"{place} could not be loaded ({told}); run it with Python to see why.")
