"""Create the table of a chatbot whose users rate answers with a thumb: python create_chatbot.py [URL]."""

import random
import sys
from datetime import datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.dialects import mysql

metadata = sa.MetaData()
time = sa.DateTime().with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")
thumbs = sa.Table(
    "answer_feedback",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("conversation_id", sa.String(36)),
    sa.Column("message_id", sa.String(36)),
    sa.Column("thumbs_up", sa.Boolean),
    sa.Column("model", sa.String(20)),
    sa.Column("comment", sa.Text),
    sa.Column("created_at", time, index=True),
)


def create_tables(url: str, rows: int = 30) -> None:
    """Create the table with random rows, the same each time."""
    numbers = random.Random(7)
    given = [
        {
            "id": number + 1,
            "conversation_id": f"conv-{numbers.randrange(9):04}",
            "message_id": f"msg-{number // 2:04}",  # an answer can be rated twice
            "thumbs_up": numbers.choice([None, True, True, False]),
            "model": numbers.choice(["small", "large"]),
            "comment": f"Wrong, my name is Ms Example and I live at 1 Sample Street, {number:05}.",
            "created_at": datetime(2025, 10, 1, 9) + timedelta(minutes=37 * number, milliseconds=number),
        }
        for number in range(rows)
    ]
    engine = sa.create_engine(url)
    metadata.create_all(engine)
    with engine.begin() as connection:
        connection.execute(thumbs.insert(), given)
    engine.dispose()


if __name__ == "__main__":
    create_tables(sys.argv[1] if len(sys.argv) > 1 else "sqlite:///chatbot.db")
