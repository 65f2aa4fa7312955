"""The default application schema, as SQLAlchemy Core tables.

The default query, the sample database and `schemas/` are built from these definitions. Times are naive UTC;
JSON columns contain arrays of strings. Columns that an export never reads are defined so that sample data and the
published SQL resemble a real application.
"""

import sqlalchemy as sa
from sqlalchemy.dialects import mysql, postgresql, sqlite
from sqlalchemy.schema import CreateIndex, CreateTable, ExecutableDDLElement

DIALECTS: dict[str, sa.Dialect] = {
    # The named style leaves a percent sign as it is; other styles double it.
    "postgresql": postgresql.dialect(paramstyle="named"),  # type: ignore[no-untyped-call]
    "mysql": mysql.dialect(paramstyle="named"),
    "sqlite": sqlite.dialect(paramstyle="named"),
}
"""The dialects in which SQLAlchemy renders SQL. MariaDB understands the SQL for MySQL."""

# MySQL's default has no fraction of a second.
_TIME = sa.DateTime().with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")

metadata = sa.MetaData()

recommendation_feedbacks = sa.Table(
    "recommendation_feedbacks",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("user_id", sa.Integer),
    sa.Column("analysis_id", sa.Integer),
    sa.Column("recommendation_id", sa.Integer, sa.ForeignKey("recommendation_records.id")),
    sa.Column("helpful_rating", sa.Integer),
    sa.Column("product_satisfaction", sa.Integer),
    sa.Column("routine_completion_pct", sa.Integer),
    sa.Column("would_recommend", sa.Boolean),
    sa.Column("timeframe", sa.String(32)),
    sa.Column("feedback_text", sa.Text),
    sa.Column("improvement_suggestions", sa.Text),
    sa.Column("adverse_reactions", sa.JSON),
    sa.Column("product_ratings", sa.JSON),
    sa.Column("created_at", _TIME, index=True),
    sa.Column("updated_at", _TIME),
)

recommendation_records = sa.Table(
    "recommendation_records",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("recommendation_id", sa.String(64), unique=True),
    sa.Column("conditions_analyzed", sa.JSON),
    sa.Column("rules_applied", sa.JSON),
)

profiles = sa.Table(
    "profiles",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("user_id", sa.Integer, sa.ForeignKey("users.id"), index=True),
    sa.Column("age", sa.Integer),
)

users = sa.Table("users", metadata, sa.Column("id", sa.Integer, primary_key=True))

photos = sa.Table(
    "photos",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("s3_key", sa.String(255)),
)

analyses = sa.Table(
    "analyses",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("photo_id", sa.Integer, sa.ForeignKey("photos.id")),
)


def render_application_schema(dialect: str) -> str:
    """Return the default application schema as SQL, with the index that windows need."""
    statements = []
    for table in metadata.sorted_tables:
        ddl: list[ExecutableDDLElement] = [CreateTable(table), *map(CreateIndex, table.indexes)]
        statements += [str(element.compile(dialect=DIALECTS[dialect])).strip() for element in ddl]
    text = "\n".join(line.rstrip() for line in ";\n\n".join(statements).splitlines())
    return f"-- The default application schema ({dialect}). Times are naive UTC.\n\n{text};\n".replace("\t", "    ")
