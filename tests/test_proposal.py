"""What `init` proposes for tables that it has never seen: by names and types alone, and nothing personal."""

import tomllib
from typing import Any

import pytest

from feedback_etl.database.proposal import Proposal, propose, rank_tables
from feedback_etl.database.reflection import ColumnKind, ReflectedColumn, ReflectedTable, Scale
from feedback_etl.errors import SourceError
from feedback_etl.settings.template import find_usual_scale, render_declaration


def table(name: str, key: str = "id", /, **columns: ColumnKind | tuple[ColumnKind, str]) -> ReflectedTable:
    """Return a table; a column with a pair of values refers to the `id` of another table."""
    reflected = (
        ReflectedColumn(column, kind) if isinstance(kind, str) else ReflectedColumn(column, *kind, "id")
        for column, kind in columns.items()
    )
    return ReflectedTable(name, tuple(reflected), (key,))


REVIEWS = table(
    "reviews",
    id="integer",
    customer_id=("integer", "customers"),
    product_id=("integer", "products"),
    stars="integer",
    wouldRecommend="boolean",
    helpful_votes="integer",
    title="word",
    comment="text",
    contact_email="word",
    phoneNumber="word",
    ip_address="other",
    birth_date="date",
    account_age="integer",
    country="word",
    tags="list",
    device="word",
    session_token="uuid",
    submitted_at="time",
    updated_at="time",
)
CUSTOMERS = table("customers", id="integer", name="word", research_consent="boolean", marketing_consent="boolean")
TAGS = table("review_topics", review_id=("integer", "reviews"), topic="word")
ORDERS = table("orders", id="integer", customer_id=("integer", "customers"), created_at="time", total="number")
SHOP = [CUSTOMERS, ORDERS, table("products", id="integer", name="word"), TAGS, REVIEWS]


def declared(proposal: Proposal) -> dict[str, Any]:
    """Return the proposed settings file, parsed."""
    return tomllib.loads(render_declaration(proposal, "sqlite:///shop.db"))


def test_most_likely_table_is_found() -> None:
    """Orders have a time and a key, but nothing that is a rating."""
    assert [each.name for each in rank_tables(SHOP)] == ["reviews"]


def test_declaration_of_a_shop() -> None:
    """Ids, time, ratings, a list, a table of elements, consent of the customers, and a quasi-identifier."""
    assert declared(propose(SHOP, REVIEWS)) == {
        "database_url": "sqlite:///shop.db",
        "source": {
            "table": "reviews",
            "feedback_id": "id",
            "user_id": "customer_id",
            "created_at": "submitted_at",
            "consent": "customers.research_consent",
            "join": {"table": "customers", "on": {"customer_id": "id"}},
        },
        "columns": {
            "product_id": {"role": "item"},
            "country": {"role": "quasi_identifier"},
        },
        "ratings": {
            "stars": {"min": 1, "max": 5},
            "would_recommend": {"type": "boolean", "column": "wouldRecommend"},
        },
        "lists": {
            "tags": {},
            "topics": {"column": "topic", "join": {"table": "review_topics", "on": {"id": "review_id"}}},
        },
    }


@pytest.mark.parametrize(
    ("name", "is_consent"),
    [
        *((name, True) for name in ("research_ok", "mayUse", "may_use_for_training", "consent_given", "opt_in")),
        *((name, False) for name in ("email_ok", "may_not_use", "consent_withdrawn", "is_active")),
    ],
)
def test_consent_of_the_person_is_recognised_by_its_name(name: str, *, is_consent: bool) -> None:
    """Without one, a comment says so; a refusal is none."""
    flag: dict[str, ColumnKind | tuple[ColumnKind, str]] = {name: "boolean"}
    people = table("customers", id="integer", **flag)
    proposal = propose([people, REVIEWS], REVIEWS)
    assert declared(proposal)["source"].get("consent") == (f"customers.{name}" if is_consent else None)
    text = render_declaration(proposal, None)
    assert (": the feedback of all users would be exported.\n" in text) is not is_consent


@pytest.mark.parametrize(
    ("tables", "unused"),
    [
        ([table("customers", id="integer", marketing_opt_out="boolean")], ["customers.marketing_opt_out"]),
        ([table("customers", id="integer", doNotTrack="integer")], ["customers.doNotTrack"]),
        ([table("customers", id="integer", consent_withdrawn_at="time")], ["customers.consent_withdrawn_at"]),
        ([table("customers", id="integer", consent="word")], ["customers.consent"]),
        (
            [
                table("customers", id="integer", account_id=("integer", "accounts")),
                table("accounts", id="integer", training_ok="boolean", opt_out="boolean"),
            ],
            ["accounts.training_ok", "accounts.opt_out"],
        ),
        ([table("customers", id="integer", may_use="boolean", opt_out="boolean")], ["customers.opt_out"]),
        ([CUSTOMERS, table("accounts", id="integer", training_ok="boolean")], []),
    ],
)
def test_consent_that_needs_a_query_is_named(tables: list[ReflectedTable], unused: list[str]) -> None:
    """A refusal, no boolean, or two joins away; with the declaration of the query's column as a comment."""
    proposal = propose([*tables, REVIEWS], REVIEWS)
    text = render_declaration(proposal, None)
    assert (f"# Not used: {', '.join(unused)}. Where" in text, list(proposal.unused_consent)) == (bool(unused), unused)
    assert ('# query = "feedback.sql"' in text) == bool(unused)
    assert "No column of consent was found" not in text


def test_child_table_of_items_and_ratings_is_proposed() -> None:
    """Not one of two references to the feedback, nor of two ratings, nor of votes without an item."""
    tables = [
        REVIEWS,
        table("reviewProducts", "review_id", review_id=("integer", "reviews"), product_id="integer", stars="integer"),
        table("device", review_id=("integer", "reviews"), article="word", score="number"),
        table("pairs", a=("integer", "reviews"), b=("integer", "reviews"), product_id="integer", stars="integer"),
        table("grades", review_id=("integer", "reviews"), product_id="integer", stars="integer", quality="integer"),
        table("votes", review_id=("integer", "reviews"), user_id="integer", vote="integer"),
    ]
    join = {"min": 1, "max": 5, "on": {"id": "review_id"}}
    assert declared(propose(tables, REVIEWS))["items"] == {
        "review_products": join | {"table": "reviewProducts", "item": "product_id", "rating": "stars"},
        "device_items": join | {"table": "device", "item": "article", "rating": "score"},
    }


def test_table_that_refers_to_another_column_than_the_key_is_not_proposed() -> None:
    """A declaration joins by the key, whose values these are not."""
    child = table("reviewProducts", "code", code=("integer", "reviews"), product_id="integer", stars="integer")
    reference = child.columns[0]._replace(refers_to="number")
    other = child._replace(columns=(reference, *child.columns[1:]))
    assert "items" in declared(propose([REVIEWS, child], REVIEWS))
    assert "items" not in declared(propose([REVIEWS, other], REVIEWS))


def test_personal_columns_are_comments_with_the_reason() -> None:
    """Names, contact details, free text and dates of birth; what is undecided is a comment that can be uncommented."""
    text = render_declaration(propose(SHOP, REVIEWS), None)
    for name, reason in {
        "title": "text that a person wrote",
        "comment": "text that a person wrote",
        "contact_email": "contact details",
        "phoneNumber": "contact details",
        "ip_address": "an address",
        "birth_date": "a date of birth",
    }.items():
        assert f"# Not exported: {name} looks like {reason}.\n" in text
    uncommented = "\n".join(line.removeprefix("# ") for line in text.splitlines() if line.startswith(("# [", "# role")))
    assert tomllib.loads(uncommented)["columns"].keys() == {
        *("age_range", "helpful_votes", "device", "session_token", "account_age"),
    }
    assert "FEEDBACK_ETL_DATABASE_URL" in text


def test_personal_elements_are_no_list() -> None:
    """Unlike the name of a tag."""
    tables = [
        REVIEWS,
        table("review_keywords", review_id=("integer", "reviews"), full_name="word"),
        table("review_labels", review_id=("integer", "reviews"), customer_email_label="word"),
        table("review_tags", review_id=("integer", "reviews"), name="word"),
    ]
    assert [elements.table.name for elements in propose(tables, REVIEWS).elements] == ["review_tags"]


def test_texts_about_an_attribute_are_not_proposed() -> None:
    """Others may know a gender, and no one knows what was written about it."""
    reviews = table(
        "reviews",
        id="integer",
        gender="word",
        gender_comment="text",
        occupation_description="word",
        country_of_birth="word",
        stars="integer",
        created_at="time",
    )
    assert declared(propose([reviews], reviews))["columns"].keys() == {"gender", "country_of_birth"}


def test_person_of_an_item_is_no_item() -> None:
    """Its id would be exported as it is."""
    columns: dict[str, ColumnKind | tuple[ColumnKind, str]] = {
        "customer_id": "integer",
        "product_reviewer_id": "integer",
        "product_owner_id": ("integer", "users"),
        "stars": "integer",
        "created_at": "time",
    }
    reviews = table("reviews", id="integer", **columns)
    assert "columns" not in declared(propose([reviews], reviews))
    sold = table("reviews", id="integer", **columns, product_id="integer")
    assert declared(propose([sold], sold))["columns"] == {"product_id": {"role": "item"}}


def test_names_that_toml_must_quote() -> None:
    """Names in the export are lower-case words; those in the database stay as they are."""
    names: dict[str, ColumnKind] = {'No "1"': "integer", "User ID": "word", "Score!": "number", "Sent": "time"}
    votes = table("Thumbs Votes", 'No "1"', **names)
    proposal = propose([votes], votes)
    assert declared(proposal)["source"] == {
        "table": "Thumbs Votes",
        "feedback_id": 'No "1"',
        "user_id": "User ID",
        "created_at": "Sent",
    }
    assert declared(proposal)["ratings"] == {"score": {"column": "Score!", "min": 1, "max": 5}}


@pytest.mark.parametrize(
    ("scale", "expected"),
    [
        (None, (1, 5)),
        (Scale(None, None), (1, 5)),
        (Scale(2, 4), (1, 5)),
        (Scale(0, 4), (0, 5)),
        (Scale(1, 9), (1, 10)),
        (Scale(0, 100), (0, 100)),
        (Scale(-1, 1), (-1, 1)),
        (Scale(1, 250), (1, 250)),
    ],
)
def test_scale_is_the_most_usual_that_contains_the_values(scale: Scale | None, expected: tuple[float, float]) -> None:
    """Their own limits if none does."""
    assert find_usual_scale(scale) == expected


@pytest.mark.parametrize(
    ("scale", "expected"),
    [
        (Scale(0, 1), {"type": "boolean"}),
        (Scale(1, 9.5, 0.5), {"min": 1, "max": 10, "step": 0.5}),
        (Scale(1, 4.7, None), {"min": 1, "max": 5, "step": 0.01}),
    ],
)
def test_scale_of_a_rating_follows_its_values(scale: Scale, expected: dict[str, Any]) -> None:
    """Zeros and ones are an answer of yes or no."""
    proposal = propose(SHOP, REVIEWS)._replace(scales={"stars": scale})
    assert declared(proposal)["ratings"]["stars"] == expected


def test_table_without_a_rating_is_refused() -> None:
    """The sentence says what is missing."""
    with pytest.raises(SourceError, match="No column of orders looks like a rating"):
        propose(SHOP, ORDERS).require_complete()


def test_answers_replace_the_proposed_columns() -> None:
    """A column has one use; the column that had it is not exported."""
    proposal = propose(SHOP, REVIEWS).with_use("created_at", "updated_at").with_use("user_id", "-")
    assert declared(proposal)["source"]["created_at"] == "updated_at"
    assert "user_id" not in declared(proposal)["source"]
    assert declared(proposal)["source"]["join"] == {"table": "customers", "on": {"customer_id": "id"}}


def test_age_in_years_is_proposed_as_a_range() -> None:
    """And then a date of birth is not, since there is one age."""
    aged = REVIEWS._replace(columns=(*REVIEWS.columns, ReflectedColumn("userAge", "integer")))
    assert declared(propose([aged], aged))["columns"]["age_range"] == {
        "role": "quasi_identifier",
        "type": "integer",
        "column": "userAge",
        "bucket": [18, 25, 35, 50],
    }
    assert "age at the time of the feedback" not in render_declaration(propose([aged], aged), None)


def test_person_of_a_joined_table_is_proposed() -> None:
    """The answers name a ticket, and the ticket its customer: without a user, k would count no people."""
    tickets = table("tickets", id="integer", customer_id="integer", agent_id="integer", body="text")
    answers = table("csat", id="integer", ticket_id=("integer", "tickets"), csat_score="integer", answered_at="time")
    source = declared(propose([tickets, answers], answers))["source"]
    assert source["user_id"] == "tickets.customer_id"
    assert source["join"] == {"table": "tickets", "on": {"ticket_id": "id"}}


@pytest.mark.parametrize("name", ["reviewed_at", "createdAt", "ratedOn", "CREATED_AT", "submitDate"])
def test_text_times_of_sqlite_are_found_by_their_words(name: str) -> None:
    """Such as `reviewed_at`, without any column of the type of a time."""
    columns: dict[str, ColumnKind] = {"rating": "number", name: "text", "createdFor": "text", "comment": "text"}
    found = propose([], table("reviews", id="text", **columns))
    assert [column.column.name for column in found.find("created_at")] == [name]
