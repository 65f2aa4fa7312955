"""Create the tables of a shop whose customers review products: python create_shop.py [URL]."""

import random
import sys
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import mysql

metadata = sa.MetaData()
time = sa.DateTime().with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")
customers = sa.Table(
    "customers",
    metadata,
    sa.Column("customer_no", sa.Integer, primary_key=True),
    sa.Column("email", sa.String(80)),
    sa.Column("country", sa.String(2)),
    sa.Column("age", sa.Integer),
    sa.Column("allows_research", sa.Boolean),
)
reviews = sa.Table(
    "reviews",
    metadata,
    sa.Column("review_no", sa.BigInteger, primary_key=True),
    sa.Column("customer_no", sa.Integer, sa.ForeignKey("customers.customer_no")),
    sa.Column("product", sa.String(20)),
    sa.Column("stars", sa.Integer),
    sa.Column("verified_purchase", sa.Boolean),
    sa.Column("headline", sa.String(200)),
    sa.Column("topics", sa.JSON),
    sa.Column("Sent at", time, index=True),
    sa.Column("bundle_ratings", sa.JSON),
)
services = sa.Table(
    "review_services",
    metadata,
    sa.Column("review_no", sa.BigInteger, sa.ForeignKey("reviews.review_no"), primary_key=True),
    sa.Column("service", sa.String(20), primary_key=True),
    sa.Column("points", sa.Numeric(4, 1)),
)


def create_tables(url: str, rows: int = 30) -> None:
    """Create the tables with random rows, the same each time."""
    numbers = random.Random(6)
    people = [
        {
            "customer_no": 1000 + number,
            "email": f"customer{number}@example.org",
            "country": numbers.choice(["DE", "FR", "PL"]),
            "age": numbers.choice([None, 17, 24, 31, 44, 68]),
            "allows_research": numbers.choice([True, True, True, False, None]),
        }
        for number in range(10)
    ]
    written: list[dict[str, Any]] = [
        {
            "review_no": number + 1,
            "customer_no": numbers.choice(people)["customer_no"],
            "product": f"SKU-{numbers.randrange(5)}",
            "stars": numbers.choice([None, 1, 2, 3, 4, 5, 5]),
            "verified_purchase": numbers.choice([True, False]),
            "headline": f"Bought it for my neighbour Mrs {number}",
            "topics": numbers.sample(["price", "quality", "delivery"], numbers.randrange(1, 3)),
            "Sent at": datetime(2025, 10, 1, 9) + timedelta(hours=5 * number),
        }
        for number in range(rows)
    ]
    others = random.Random(7)
    for review in written:  # a review of a bundle rates its products, too
        bundle = others.sample(["SKU-0", "SKU-1", "=SKU-2", "Sk\u00fc 3"], others.randrange(4))
        review["bundle_ratings"] = {product: others.choice([None, 1, 3, 5]) for product in bundle}
    rated = [
        {"review_no": review["review_no"], "service": service, "points": others.choice([None, 0, 4.5, 10])}
        for review in written
        for service in others.sample(["advice", "delivery", "Returns"], others.randrange(4))
    ]
    engine = sa.create_engine(url)
    metadata.create_all(engine)
    with engine.begin() as connection:
        connection.execute(customers.insert(), people)
        connection.execute(reviews.insert(), written)
        connection.execute(services.insert(), rated)
    engine.dispose()


if __name__ == "__main__":
    create_tables(sys.argv[1] if len(sys.argv) > 1 else "sqlite:///shop.db")
