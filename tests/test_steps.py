"""What happens to raw rows between reading and writing, batch by batch."""

import hashlib
import hmac
import json
import math
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl
import pseudonym_keys
import pytest
from databases import Database
from frames import CANARY, NOW, Row, all_said, pair_frame, pandera_is_asked, raw_frame, raw_frames
from hypothesis import event, given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

import feedback_etl as fe
from feedback_etl.database.window import Window
from feedback_etl.errors import AllRejectedError, UsageError, ValidationError
from feedback_etl.options.export import ExportOptions
from feedback_etl.pipeline.batch_processor import BatchProcessor
from feedback_etl.pipeline.transform_options import TransformOptions
from feedback_etl.privacy.keys import Key
from feedback_etl.results import ExportReport, FeedbackProcessingStats
from feedback_etl.transform.overrides import Overrides

KEY = Key(pseudonym_keys.KEY)
WINDOW = Window(datetime(2025, 10, 1), NOW)
FEWER = settings(max_examples=settings().max_examples // 5)
UNRATED = dict.fromkeys(("helpful_rating", "product_satisfaction", "routine_completion_pct", "would_recommend"))
T0 = datetime(2025, 10, 25, 10)
T1 = T0 + timedelta(microseconds=1)
REJECTED_SCHEMA = {"feedback_id": pl.Int64, "analysis_hash": pl.String, "reasons": pl.String}


def rules(
    now: datetime = NOW, key: Key | None = None, overrides: Overrides | None = None, **options: Any
) -> TransformOptions:
    """Return the rules of an export with these options."""
    return TransformOptions.from_options(ExportOptions.from_keywords(**options), now, key, overrides)


class Outcome(NamedTuple):
    """What became of all batches together."""

    pairs: pl.DataFrame
    rejected: pl.DataFrame
    report: ExportReport


def outcome_of(batches: Sequence[pl.DataFrame], **changes: Any) -> Outcome:
    """A whole run, without its judgement."""
    processor = BatchProcessor(rules(**changes))
    done = [processor.process(batch) for batch in batches]
    rejected = pl.concat([*(batch.rejected for batch in done), processor.flush_rejected()], how="vertical_relaxed")
    return Outcome(pl.concat([batch.pairs for batch in done]), rejected, processor.build_report(WINDOW, 0))


def judged(*batches: pl.DataFrame, **changes: Any) -> None:
    """A whole run with its judgement."""
    processor = BatchProcessor(rules(**changes))
    for batch in batches:
        processor.process(batch)
    processor.flush_rejected()
    processor.check_limits(WINDOW, 0)


def adds_up(report: FeedbackProcessingStats) -> bool:
    """The identity that holds in every run."""
    parts = report.exported_records + report.deduplicated_records + report.skipped_records + report.errors
    anonymized = report.exported_records + report.suppressed_records
    return (report.total_feedback_records, report.anonymized_records) == (parts + report.suppressed_records, anonymized)


@st.composite
def cut_into_batches(draw: st.DrawFn, frame: pl.DataFrame) -> list[pl.DataFrame]:
    """The same rows in consecutive batches, some of which may be empty."""
    cuts = sorted(draw(st.lists(st.integers(0, frame.height), max_size=4)))
    return [frame.slice(start, end - start) for start, end in zip([0, *cuts], [*cuts, frame.height], strict=True)]


class TestOneBatch:
    """The steps, in their order."""

    def test_the_outcome_in_full(self) -> None:
        """The expected frames and figures: two exported, one skipped, one rejected, one duplicate."""
        batch = raw_frame(
            {"feedback_id": 1},
            {"feedback_id": 2} | UNRATED,
            {"feedback_id": 3, "helpful_rating": 0, "routine_completion_pct": 200},
            {"feedback_id": 4, "helpful_rating": 1},
            {"feedback_id": 5, "recommendation_id": "rec_2"},
        )
        pairs, rejected, report = outcome_of([batch])
        assert_frame_equal(pairs, pair_frame({}, {"recommendation_id": "rec_2"}))
        expected = {
            "feedback_id": 3,
            "analysis_hash": "73475cb40a568e8d",
            "reasons": "helpful_rating_out_of_range,routine_completion_pct_out_of_range",
        }
        assert_frame_equal(rejected, pl.DataFrame([expected], schema=REJECTED_SCHEMA))
        assert report == ExportReport(
            total_feedback_records=5,
            exported_records=2,
            anonymized_records=2,
            deduplicated_records=1,
            skipped_records=1,
            errors=1,
            rejected_reasons={"routine_completion_pct_out_of_range": 1, "helpful_rating_out_of_range": 1},
            window=WINDOW,
        )
        assert adds_up(report)

    def test_an_implausible_age_is_left_empty_and_counted(self) -> None:
        """Numbers below 0 and above 130, where there is no age at all nothing is counted; no row is rejected."""
        ages = [-1, -0.5, 0, 34.5, 130, 130.5, 200, math.inf, math.nan, None]
        rows = [{"age": age, "created_at": T0 + timedelta(hours=hour)} for hour, age in enumerate(ages)]
        pairs, rejected, report = outcome_of(
            [raw_frame(*rows[:4], age=pl.Float64), raw_frame(*rows[4:], age=pl.Float64)]
        )
        ranges = [None, None, "<18", "25-35", "50+", None, None, None, None, None]
        assert pairs["age_range"].to_list() == ranges
        assert rejected.is_empty()
        assert (report.exported_records, report.errors, report.implausible_ages) == (10, 0, 5)

    def test_ages_without_a_type_are_none(self) -> None:
        """As in a frame of Python values in which no one has one."""
        report = outcome_of([raw_frame({"age": None}, age=pl.Null)]).report
        assert (report.exported_records, report.implausible_ages) == (1, 0)

    def test_implausible_ages_of_parts_add_up(self) -> None:
        """What workers count, the report of the whole has."""
        whole = BatchProcessor(rules())
        for hour in (1, 2):
            part = BatchProcessor(rules())
            part.process(raw_frame({"age": 131, "created_at": T0 + timedelta(hours=hour)}))
            whole.merge_counts(part.take_counts())
        assert whole.build_report(WINDOW, 0).implausible_ages == 2

    @pytest.mark.parametrize("least", range(5))
    def test_rows_with_too_few_ratings_are_skipped_before_they_are_judged(self, least: int) -> None:
        """What is wrong with a row that is not wanted does not matter."""
        names = list(UNRATED)
        rows = [dict.fromkeys(names[count:]) | {"rules_applied": "oops"} for count in range(5)]
        report = outcome_of([raw_frame(*rows)], min_feedback_fields=least).report
        assert (report.skipped_records, report.errors) == (least, 5 - least)

    def test_the_list_of_rejected_rows_holds_no_values(self) -> None:
        """Feedback id, pseudonym and reasons; a row without an analysis has no pseudonym."""
        rows: list[Row] = [
            {"feedback_id": 1, "timeframe": f"={CANARY}", "user_id": 47114711},
            {"feedback_id": None, "analysis_id": None, "recommendation_id": f"={CANARY}\0"},
            {"feedback_id": 3, "conditions_analyzed": f'["{CANARY},"]', "rules_applied": CANARY},
        ]
        frame = raw_frame(*rows).with_columns(feedback_text=pl.lit(CANARY))
        rejected = outcome_of([frame], key=KEY, formulas="reject").rejected
        pseudonym = hmac.new(KEY.text.encode(), b"analysis_id:42", hashlib.sha256).hexdigest()[:16]
        expected = [
            (1, pseudonym, "formula"),
            (None, None, "analysis_id_missing,formula,control_character"),
            (3, pseudonym, "comma_in_element,rules_not_a_list"),
        ]
        assert_frame_equal(rejected, pl.DataFrame(expected, schema=REJECTED_SCHEMA, orient="row"))

    def test_keys_and_recommendations_follow_the_rules(self) -> None:
        """The pseudonyms of the run's key, for recommendations too where they are to be hashed."""
        pairs, _, report = outcome_of([raw_frame({})], key=KEY, hash_recommendation_id=True)
        digests = [
            hmac.new(KEY.text.encode(), text, hashlib.sha256).hexdigest()[:16]
            for text in (b"analysis_id:42", b"recommendation_id:rec_1")
        ]
        assert pairs.select("analysis_hash", "recommendation_id").row(0) == tuple(digests)
        assert report.key_id == KEY.id

    def test_no_rows(self) -> None:
        """They give frames of the right types and no figures."""
        pairs, rejected, report = outcome_of([raw_frame()])
        assert_frame_equal(pairs, pair_frame())
        assert_frame_equal(rejected, pl.DataFrame(schema=REJECTED_SCHEMA))
        assert report == ExportReport(window=WINDOW)

    def test_processing_error_contains_no_values(self) -> None:
        """Neither the message nor an error behind it holds any."""
        with pytest.raises(ValidationError) as caught:
            BatchProcessor(rules()).process(raw_frame({"timeframe": CANARY}).drop("helpful_rating"))
        assert str(caught.value) == "A batch could not be processed (ColumnNotFoundError); nothing was written."
        assert CANARY not in all_said(caught.value)
        assert caught.value.__context__ is None

    def test_every_batch_passes_the_gate(self) -> None:
        """A clean one too: `split_valid` does not ask pandera about it, so who asks is `validate`."""
        processor, batch = BatchProcessor(rules()), raw_frame({})
        assert pandera_is_asked(lambda: processor.validate_pairs(processor.process(batch).pairs))

    @pytest.mark.parametrize("face", [fe.export_feedback, fe.load_training])
    def test_nothing_leaves_without_the_gate(
        self, sqlite_database: Database, monkeypatch: pytest.MonkeyPatch, face: Callable[..., Any]
    ) -> None:
        """Refused rows are neither in a file nor in a frame."""

        def refuse(_frame: pl.DataFrame, **_options: object) -> None:
            raise ValidationError("the gate")

        monkeypatch.setattr("feedback_etl.transform.training_schema.validate", refuse)
        sqlite_database.fill(feedbacks=[{"id": 1, "analysis_id": 1, "helpful_rating": 5, "created_at": T0}])
        with pytest.raises(ValidationError, match="the gate"):
            face(sqlite_database.url, days_back=-1, now=NOW, key=KEY)
        assert not list(Path().rglob("feedback_training_*"))

    def test_a_wrong_type_is_named(self) -> None:
        """As `split_valid` names it."""
        with pytest.raises(ValidationError, match="analysis_id is Float64"):
            BatchProcessor(rules()).process(raw_frame({}).with_columns(analysis_id=pl.lit(1.0)))


class TestBatches:
    """Many batches are as one."""

    @FEWER
    @given(st.data())
    def test_any_partition_gives_what_one_batch_gives(self, data: st.DataObject) -> None:
        """The same rows in the same order, and the same figures, which add up."""
        frame = data.draw(raw_frames()).sort("created_at", nulls_last=True, maintain_order=True)
        options = {"min_feedback_fields": data.draw(st.integers(0, 4)), "key": data.draw(st.sampled_from([None, KEY]))}
        batches = data.draw(cut_into_batches(frame))
        whole, parts = outcome_of([frame], **options), outcome_of(batches, **options)
        event(f"duplicates: {whole.report.deduplicated_records > 0}, batches: {len(batches)}")
        assert_frame_equal(parts.pairs, whole.pairs)
        assert_frame_equal(parts.rejected, whole.rejected)
        assert parts.report == whole.report
        assert list(parts.report.rejected_reasons) == list(whole.report.rejected_reasons)
        assert adds_up(whole.report)

    @pytest.mark.parametrize("cut", range(7))
    def test_duplicates_are_found_wherever_a_batch_ends(self, cut: int) -> None:
        """Also when a batch brings nothing new, or nothing valid, between a row and its duplicate."""
        frame = raw_frame(
            {"created_at": T0},
            {"created_at": T0, "recommendation_id": "rec_2"},
            {"created_at": T0, "routine_completion_pct": 200},
            {"created_at": T0},
            {"created_at": T0, "recommendation_id": "rec_2"},
            {"created_at": T1},
            {"created_at": T1},
        )
        pairs, _, report = outcome_of([frame[:cut], frame[cut : cut + 1], frame[cut + 1 :]])
        assert pairs["recommendation_id"].to_list() == ["rec_1", "rec_2", "rec_1"]
        assert (report.deduplicated_records, report.errors) == (3, 1)

    @pytest.mark.parametrize("other", [UNRATED, {"rules_applied": "oops"}])
    @pytest.mark.parametrize("batches", [1, 2])
    def test_a_row_whose_duplicate_was_left_out_is_not_lost(self, other: dict[str, Any], batches: int) -> None:
        """Only valid rows have duplicates: an earlier one that was skipped or rejected replaces none."""
        rows = [raw_frame(other), raw_frame({}), raw_frame(other)]
        pairs, _, report = outcome_of(rows if batches > 1 else [pl.concat(rows)])
        assert_frame_equal(pairs, pair_frame({}))
        assert (report.total_feedback_records, report.exported_records, report.deduplicated_records) == (3, 1, 0)

    @pytest.mark.parametrize(("first", "second"), [(pl.Int64, pl.String), (pl.String, pl.Int64), (pl.UInt64, pl.Int64)])
    def test_a_type_that_changes_between_batches_hides_no_duplicate(self, first: Any, second: Any) -> None:
        """Untyped sources may give an id as a number in one batch and as text in the next."""
        batches = [raw_frame({}).with_columns(pl.col("analysis_id").cast(dtype)) for dtype in (first, second)]
        pairs, _, report = outcome_of(batches)
        assert_frame_equal(pairs, pair_frame({}))
        assert report.deduplicated_records == 1

    def test_nothing_is_carried_over_to_another_run(self) -> None:
        """The same batch twice: a duplicate in one run, new in the next."""
        batch = raw_frame({}, {"routine_completion_pct": 200})
        assert outcome_of([batch, batch]).report.deduplicated_records == 1
        first, second = outcome_of([batch]), outcome_of([batch])
        assert_frame_equal(first.pairs, second.pairs)
        assert first.report == second.report


class TestJudge:
    """Whether there may be an export."""

    def test_no_row_rejected(self) -> None:
        """An export without rejected rows passes, also with strict and without rows."""
        judged(raw_frame({}), strict=True, max_rejected=0.0)
        judged(raw_frame(), strict=True, max_rejected=0.0)
        judged(raw_frame(UNRATED | {"rules_applied": "oops"}), strict=True, max_rejected=0.0)

    def test_some_rows_rejected(self) -> None:
        """By default at most half of the rows may be rejected."""
        judged(raw_frame({}, {"routine_completion_pct": 200}))
        with pytest.raises(ValidationError, match=r"2 of 3 rows \(66\.7 %\) .* and `max_rejected` allows 0\.5\."):
            judged(raw_frame({}, {"routine_completion_pct": 200}, {"routine_completion_pct": 201}))

    def test_strict(self) -> None:
        """One rejected row is too many; the message counts the reasons, the most frequent first."""
        rows: list[Row] = [
            {},
            {"routine_completion_pct": 200, "rules_applied": CANARY},
            {"timeframe": f"={CANARY}"},
            {"routine_completion_pct": 201},
            UNRATED,
        ]
        with pytest.raises(ValidationError) as caught:
            judged(raw_frame(*rows), strict=True, formulas="reject")
        assert str(caught.value) == (
            "Nothing was exported: 3 of 4 rows (75.0 %) are rejected, and `strict` allows none. "
            "Reasons: routine_completion_pct_out_of_range 2, formula 1, rules_not_a_list 1. "
            "Correct these rows in the database, or leave `strict` out."
        )
        assert caught.value.reasons == {"routine_completion_pct_out_of_range": 2, "formula": 1, "rules_not_a_list": 1}
        assert CANARY not in all_said(caught.value)

    def test_all_rows_rejected(self) -> None:
        """An export without rows fails, whatever share may be rejected."""
        message = r"2 of 2 rows \(100\.0 %\) are rejected, so no valid row is left"
        with pytest.raises(AllRejectedError, match=message) as caught:
            judged(raw_frame({"timeframe": "\x1b1"}), raw_frame({"timeframe": "\x1b1"}, UNRATED), max_rejected=1.0)
        report = caught.value.report
        assert (report.total_feedback_records, report.skipped_records, report.errors) == (3, 1, 2)

    @pytest.mark.parametrize("limit", [{"strict": True}, {"max_rejected": 0.5}], ids=str)
    def test_a_limit_that_was_asked_for_comes_first(self, limit: dict[str, Any]) -> None:
        """With a limit, a caller gets the error instead of figures."""
        with pytest.raises(ValidationError) as caught:
            judged(raw_frame({"timeframe": "\x1b1"}), **limit)
        assert type(caught.value) is ValidationError

    @pytest.mark.parametrize(("rejected", "passes"), [(1, True), (2, True), (3, False)])
    def test_the_greatest_share_is_allowed_itself(self, rejected: int, passes: bool) -> None:
        """0.05 of 40 rows are two; skipped rows do not count."""
        batch = raw_frame(*[{"routine_completion_pct": 200}] * rejected, *[{}] * (40 - rejected), *[UNRATED] * 60)
        if passes:
            judged(batch, max_rejected=0.05)
        else:
            with pytest.raises(ValidationError, match=r"and `max_rejected` allows 0\.05\. Reasons"):
                judged(batch, max_rejected=0.05)

    def test_duplicates_count_as_rows_that_were_not_rejected(self) -> None:
        """The share is of the rows with enough ratings."""
        judged(raw_frame({}, {}, {}, {"routine_completion_pct": 200}), max_rejected=0.25)


class TestRules:
    """Valid and invalid options."""

    @pytest.mark.parametrize("share", [-0.01, 1.01, float("nan"), 5])
    def test_a_share_lies_between_0_and_1(self, share: float) -> None:
        """5 is not 5 %."""
        with pytest.raises(UsageError, match=r"^`max_rejected` must be a share from 0 to 1, for example 0\.05\.$"):
            rules(max_rejected=share)

    def test_what_other_modules_refuse_is_refused_here(self) -> None:
        """Before any row is read."""
        with pytest.raises(UsageError, match="min_feedback_fields"):
            rules(min_feedback_fields=5)
        with pytest.raises(UsageError, match="timestamp_precision"):
            rules(timestamp_precision="hours")

    def test_they_do_not_show_the_key(self) -> None:
        """A key's id is what may be seen."""
        assert KEY.text not in repr(rules(key=KEY))
        assert KEY.id in repr(rules(key=KEY))


class TestReport:
    """The report of a run."""

    def test_figures_are_zero_by_default(self) -> None:
        """The classic eight and what came later."""
        assert FeedbackProcessingStats() == FeedbackProcessingStats(0, 0, 0, 0, 0, 0, 0.0, "", 0, 0)
        assert adds_up(FeedbackProcessingStats())

    def test_json_holds_it_all(self) -> None:
        """Times as ISO 8601 text in UTC, a window without a start as null."""
        report = outcome_of([raw_frame({}, {"timeframe": "=1"})], key=KEY, formulas="reject").report
        figures = json.loads(json.dumps(report.to_dict()))
        assert figures == {
            **{"total_feedback_records": 2, "exported_records": 1, "anonymized_records": 1, "deduplicated_records": 0},
            **{"skipped_records": 0, "errors": 1, "suppressed_records": 0, "excluded_records": 0},
            **{"erased_records": 0, "known_records": 0, "pending_records": 0},
            **{"execution_time_seconds": 0.0, "export_filename": "", "rejected_filename": ""},
            **{"rejected_reasons": {"formula": 1}, "key_id": KEY.id, "advice": ""},
            **{"implausible_ages": 0, "withheld_image_urls": 0, "unreadable_times": 0, "escaped_texts": {}},
            **{"exported_items": 0, "escaped_items": 0, "items_filename": ""},
            **{"audit_head": "", "mode": "full", "late_records": 0, "changed_records": 0, "risk": {}},
            "window": ["2025-10-01T00:00:00", "2025-10-25T12:00:00.654321"],
        }
        assert ExportReport(window=Window(None, T0)).to_dict()["window"] == [None, "2025-10-25T10:00:00"]
        assert ExportReport().to_dict()["window"] is None

    def test_rows_without_consent_are_no_part_of_the_total(self) -> None:
        """They are counted and never read."""
        processor = BatchProcessor(rules())
        processor.process(raw_frame({}))
        report = processor.build_report(WINDOW, excluded=5)
        assert (report.excluded_records, report.total_feedback_records) == (5, 1)
        assert adds_up(report)

    def test_export_date_is_one_value_for_the_run(self) -> None:
        """The instant the run was given, cut to seconds."""
        pairs = outcome_of([raw_frame({}), raw_frame({"created_at": T1})]).pairs
        assert pairs["export_date"].to_list() == [datetime(2025, 10, 25, 12, tzinfo=UTC)] * 2


def test_a_feedback_id_is_no_formula_in_the_list_of_rejected_rows() -> None:
    """The list is opened in spreadsheet programs; an id that they would run gets an apostrophe before it."""
    rows = raw_frame({"helpful_rating": 9}).with_columns(feedback_id=pl.lit("=1+1"))
    rejected = outcome_of([rows]).rejected
    assert rejected["feedback_id"].to_list() == ["'=1+1"]
