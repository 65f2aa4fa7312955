"""What settings decide of an export, as arguments of the library: the same for every face."""

from typing import TYPE_CHECKING, Any

from feedback_etl.errors import UsageError

if TYPE_CHECKING:
    from feedback_etl.settings import Settings
    from feedback_etl.transform.training_schema import Model


def database_of(settings: "Settings") -> str:
    """The URL of the database, with its password.

    Raises:
        UsageError: None is configured.
    """
    from feedback_etl.settings import NO_DATABASE

    if settings.database_url is None:
        raise UsageError(NO_DATABASE)
    return settings.database_url.get_secret_value()


def selection_of(settings: "Settings") -> dict[str, Any]:
    """How rows are found, and what they look like."""
    from feedback_etl.database.inspection import read_query_file

    return {
        "query": read_query_file(settings.query) if settings.query else None,
        "columns": settings.extra_columns,
        "age_edges": settings.age_edges,
        "db_schema": settings.db_schema,
        "opt_in_column": settings.opt_in_column,
        "opt_out_column": settings.opt_out_column,
        "connect_timeout": settings.connect_timeout,
        "allow_row_security": settings.allow_row_security,
    }


def privacy_of(settings: "Settings") -> dict[str, Any]:
    """What makes people harder to find."""
    return {
        "timestamp_precision": settings.timestamp_precision,
        "k": settings.k,
        "on_small_class": settings.on_small_class,
        "max_suppressed": settings.max_suppressed,
        "quasi_identifiers": settings.quasi_identifiers,
    }


def model_of(settings: "Settings") -> "Model | None":
    """The model that every batch has to fit, if one is named."""
    from feedback_etl.transform.model_loader import load_model

    return load_model(settings.model) if settings.model else None


def export_of(settings: "Settings") -> dict[str, Any]:
    """All but the database and the key."""
    return {
        **selection_of(settings),
        **privacy_of(settings),
        "model": model_of(settings),
        "output_dir": settings.output_dir,
        "stall_timeout": settings.stall_timeout,
        "lock_timeout": settings.lock_timeout,
    }
