"""The options of an export are declared once, and every caller uses the same."""

import inspect
import sys
from dataclasses import MISSING, FrozenInstanceError, fields, replace
from datetime import datetime
from typing import Any, get_type_hints
from unittest.mock import patch

import pytest

import feedback_etl as fe
from feedback_etl.errors import UsageError
from feedback_etl.options import keywords
from feedback_etl.options.export import ExportOptions, list_option_names
from feedback_etl.options.keywords import ExportKeywords, ReadKeywords, TrainingKeywords
from feedback_etl.options.output import OutputOptions
from feedback_etl.options.privacy import PrivacyOptions
from feedback_etl.options.quality import QualityOptions
from feedback_etl.options.read import ReadOptions
from feedback_etl.schema.classic import CLASSIC_SCHEMA
from feedback_etl.schema.column_types import ExtraColumn
from feedback_etl.schema.model import FeedbackSchema
from feedback_etl.schema.source import SourceTable
from feedback_etl.settings.model import Settings, load_settings
from feedback_etl.transform import failure_cases

GROUPS = (ReadOptions, QualityOptions, PrivacyOptions, OutputOptions)


def declared(kind: type) -> dict[str, Any]:
    """Return the options of a group or TypedDict with their types; those for type checkers alone are looked up here."""
    names: dict[str, Any] = {
        "ExtraColumn": ExtraColumn,
        "FeedbackSchema": FeedbackSchema,
        "Model": failure_cases.Model,
        "SourceTable": SourceTable,
    }
    with patch.multiple(keywords, create=True, **names):
        return get_type_hints(kind, vars(sys.modules[kind.__module__]) | names)


@pytest.mark.parametrize(
    ("keywords", "groups"),
    [(ReadKeywords, GROUPS[:1]), (TrainingKeywords, GROUPS[:3]), (ExportKeywords, GROUPS)],
    ids=["ReadKeywords", "TrainingKeywords", "ExportKeywords"],
)
def test_keywords_have_the_names_and_types_of_the_groups(keywords: type, groups: tuple[type, ...]) -> None:
    of_groups = [hint for group in groups for hint in declared(group).items()]
    assert len({name for name, _ in of_groups}) == len(of_groups)
    assert declared(keywords) == dict(of_groups)


@pytest.mark.parametrize("group", GROUPS, ids=lambda group: group.__name__)
def test_every_option_is_documented_and_has_a_default(group: type) -> None:
    for option in fields(group):
        assert f"        {option.name}: " in (group.__doc__ or ""), option.name
        assert (option.default, option.default_factory) != (MISSING, MISSING), option.name


def test_settings_share_the_defaults(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    options, built_in = load_settings().to_options(), ExportOptions()
    assert options.read == built_in.read
    assert options.privacy == built_in.privacy
    assert str(options.output.output_dir) == built_in.output.output_dir
    assert replace(options.output, output_dir=built_in.output.output_dir) == built_in.output
    assert {*Settings.model_fields} & {*list_option_names()} >= {"k", "read_timeout", "batch_size", "lock_timeout"}


def test_functions_take_options_beside_their_own_arguments_only() -> None:
    own = {
        "database",
        "options",
        "key",
        "unkeyed",
        "now",
        "executor",
        "overrides",
        "on_progress",
        "on_phase",
        "keywords",
    }
    for function in (fe.export_feedback, fe.load_training, fe.load_feedback, fe.plan):
        parameters = {*inspect.signature(function).parameters}
        if function is fe.load_training:
            parameters.remove("output_dir")  # the folder whose erasures count, not one to write to
        assert parameters <= own
        assert parameters & {*list_option_names()} == set()


def test_groups_are_frozen_and_keyword_only() -> None:
    with pytest.raises(FrozenInstanceError):
        ExportOptions().read.days_back = 7  # type: ignore[misc]
    with pytest.raises(TypeError, match="positional"):
        ReadOptions(7)  # type: ignore[call-arg]


def test_keywords_replace_options() -> None:
    options = ExportOptions.from_keywords(days_back=7, k=5)
    assert options.with_keywords(k=6).privacy.k == 6
    assert options.with_keywords(k=6).read.days_back == 7
    assert options.with_keywords() is options


@pytest.mark.parametrize("function", [fe.load_training, fe.load_feedback], ids=lambda function: function.__name__)
def test_an_option_without_effect_is_refused(function: Any) -> None:
    with pytest.raises(UsageError, match=r"^There is no option compression\."):
        function("sqlite://", compression="gzip")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"until": "2025-01-01"}, r"^The end of a window \(`until`\) requires a start"),
        ({"days_back": 0}, "^`days_back` must be a whole number of days"),
        ({"days_back": "7"}, "^`days_back` must be a whole number of days"),
        ({"max_rejected": 5}, "^`max_rejected` must be a share from 0 to 1"),
        ({"quasi_identifiers": ["gender"]}, "^`quasi_identifiers` must name columns of an export"),
        ({"incremental": True, "since": "2025-01-01"}, "^An incremental export continues where the last one ended"),
        ({"incremental": True, "idempotency_key": "x"}, "^An incremental export never repeats a row"),
        ({"format": "parquet", "compression": "gzip"}, "^Parquet files are always compressed"),
        ({"extra_columns": [ExtraColumn("image_url")]}, "^An extra column cannot be called image_url"),
    ],
    ids=lambda value: "" if isinstance(value, str) else "+".join(value),
)
def test_wrong_options_are_refused_when_they_are_given(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        ExportOptions.from_keywords(**wrong)


def test_an_end_of_the_window_may_be_in_the_future_until_the_export_runs() -> None:
    read = ReadOptions(since="2025-01-01", until="9000-01-01")
    with pytest.raises(UsageError, match="future"):
        read.window(datetime(2026, 1, 1))


class TestForSharing:
    """The preset for data that leaves the organisation."""

    def test_it_asks_for_no_less_than_the_preset(self) -> None:
        shared = ExportOptions.from_keywords(k=2, recipient="acme").privacy
        assert (shared.k, shared.timestamp_precision, shared.on_small_class) == (5, "month", "generalize")
        assert shared.hash_recommendation_id
        assert shared.quasi_identifiers == (*CLASSIC_SCHEMA.quasi_identifiers, "feedback_timestamp")
        assert ExportOptions.from_keywords(k=20, recipient="acme").privacy.k == 20

    def test_options_that_are_given_with_a_recipient_stay(self) -> None:
        """A coarser or finer period down to the day, and another choice for small classes; finer times are refused."""
        given: dict[str, Any] = {"recipient": "acme", "timestamp_precision": "week", "on_small_class": "suppress"}
        shared = ExportOptions.from_keywords(**given).privacy
        assert (shared.timestamp_precision, shared.on_small_class) == ("week", "suppress")
        with pytest.raises(UsageError, match=r"^`recipient` requires k of at least 5"):
            ExportOptions.from_keywords(recipient="acme", timestamp_precision="hour")

    @pytest.mark.parametrize("personal", ["include_image_urls", "include_subject_hash"])
    def test_it_refuses_columns_about_persons(self, personal: str) -> None:
        with pytest.raises(UsageError, match=r"^Shared data must not contain images or pseudonyms of users"):
            ExportOptions.from_keywords(**{personal: True}, recipient="acme")  # type: ignore[arg-type]
