"""The beginning of a URL of raw files, for modules that are imported without SQLAlchemy, too."""

FILES_PREFIX = "files:"
"""The pattern of the files' paths follows."""
