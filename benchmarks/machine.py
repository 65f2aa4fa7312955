"""What it was measured on, without the names of hosts and folders."""

import os
import platform
import re
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil

_PACKAGES = (
    *("polars", "polars-hash", "connectorx", "pandera", "pyarrow", "SQLAlchemy", "psycopg"),
    *("typer", "pydantic-settings", "pandas", "dlt"),
)


def description(postgres_version: str) -> list[tuple[str, str]]:
    """Pairs of what and which."""
    memory = psutil.virtual_memory().total / 2**30
    return [
        ("processor", f"{_processor()}, {_usable_cores()} cores"),
        ("memory", f"{memory:.1f} GiB"),
        ("system", f"{platform.system()} {platform.release()}, {platform.machine()}"),
        ("Python", platform.python_version()),
        (
            "PostgreSQL",
            f"{postgres_version} on the same machine, over a Unix socket; default settings but for durability",
        ),
        ("packages", ", ".join(f"{name} {found}" for name in _PACKAGES if (found := _version(name)))),
    ]


def _processor() -> str:
    with_names = Path("/proc/cpuinfo")
    found = re.search(r"^model name\s*: (.+)$", with_names.read_text(), re.MULTILINE) if with_names.exists() else None
    return found[1] if found else platform.processor()


def _usable_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
