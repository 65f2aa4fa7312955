"""Create the tables of a university that lets students rate courses: python create_courses.py [URL]."""

import random
import sys
import uuid
from datetime import UTC, datetime, timedelta

import sqlalchemy as sa

metadata = sa.MetaData()
ratings = sa.Table(
    "course_ratings",
    metadata,
    sa.Column("id", sa.Uuid, primary_key=True),
    sa.Column("student_id", sa.Uuid),
    sa.Column("course_id", sa.Uuid),
    sa.Column("score", sa.Numeric(3, 1)),
    sa.Column("difficulty", sa.SmallInteger),
    sa.Column("would_take_again", sa.Boolean),
    sa.Column("comment", sa.Text),
    sa.Column("rated_at", sa.DateTime(timezone=True), index=True),
)
tags = sa.Table(
    "course_rating_tags",
    metadata,
    sa.Column("rating_id", sa.Uuid, sa.ForeignKey("course_ratings.id"), primary_key=True),
    sa.Column("tag", sa.String(40), primary_key=True),
)
TAGS = ("clear", "fast", "useful, but dry", 'much "homework"', "fun")


def create_tables(url: str, rows: int = 30) -> None:
    """Create both tables with random rows, the same each time."""
    numbers = random.Random(5)
    students, courses = ([uuid.UUID(int=numbers.getrandbits(128), version=4) for _ in range(count)] for count in (8, 4))
    rated, tagged = [], []
    for number in range(rows):
        id_ = uuid.UUID(int=numbers.getrandbits(128), version=4)
        rated.append(
            {
                "id": id_,
                "student_id": numbers.choice(students),
                "course_id": numbers.choice(courses),
                "score": numbers.choice([None, *(half / 2 for half in range(2, 21))]),
                "difficulty": numbers.choice([None, 1, 2, 3, 4, 5]),
                "would_take_again": numbers.choice([None, True, False]),
                "comment": f"Call me: +49 151 2345{number:03}",
                "rated_at": datetime(2025, 10, 1, 8, tzinfo=UTC) + timedelta(hours=7 * number, microseconds=number),
            }
        )
        tagged += [{"rating_id": id_, "tag": tag} for tag in numbers.sample(TAGS, numbers.randrange(4))]
    engine = sa.create_engine(url)
    metadata.create_all(engine)
    with engine.begin() as connection:
        connection.execute(ratings.insert(), rated)
        connection.execute(tags.insert(), tagged)
    engine.dispose()


if __name__ == "__main__":
    create_tables(sys.argv[1] if len(sys.argv) > 1 else "sqlite:///courses.db")
