"""Pseudonym keys of the tests: random, as `feedback-etl keys new` makes them, and published, so of no use elsewhere."""

KEY = "daa0871acd4ebc9edb39ffe5bb8b89c8"
OTHER_KEY = "89d3aa1328ac08a5b0c943e21ef434bc"
SECRET_KEY = "canary-b7fda53a7761a9cdf1899c89d9865a91"
"""A key with a word that is searched for in everything that is printed and written."""
