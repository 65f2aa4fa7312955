"""Test that incremental series follow the changes that users make."""

from feedback_etl.compliance.context import CheckContext
from feedback_etl.compliance.item import ChecklistItem
from feedback_etl.database.cursor_name import CREATED_AT
from feedback_etl.exports.series_status import list_series
from feedback_etl.plurals import pluralize


def check_edits(context: CheckContext) -> ChecklistItem:
    """Test that no series continues by created_at while rows are changed, unless the setting cursor says so."""
    settings, edited = context.remedies.settings, context.application.edited
    names = [series.settings for series in list_series(context.storage) if not series.has_ended]
    unfollowed = [export for export in context.exports if export.chain and export.settings in names]
    unfollowed = [export for export in unfollowed if not export.settings.get("cursor")]
    if not unfollowed:
        return ChecklistItem("edits", "ok", "No incremental series leaves changed rows out.")
    if "cursor" in settings.model_fields_set and settings.cursor == CREATED_AT:
        detail = "The setting cursor is created_at: incremental series do not follow changes."
        return ChecklistItem("edits", "ok", detail)
    if edited is None:
        detail = "Not tested: the times of changes in a query or declared source, or without updated_at, are not known."
        return ChecklistItem("edits", "skipped", detail, "set cursor, to created_at if rows are never changed")
    if not edited:
        return ChecklistItem("edits", "ok", "No row was changed after it was created.")
    detail = (
        f"{pluralize(edited, 'row')} changed after creation (updated_at), and an incremental series continues by "
        "created_at: its exports keep the old values"
    )
    return ChecklistItem("edits", "failed", f"{detail}.", context.remedies.follow_changes(unfollowed[0], context.now))
