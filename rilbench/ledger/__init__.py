"""The ledger: every score with its provenance, in one SQLite file.

A score names its data, kit, metric and judge. Its evaluation names the model, the suite, the
settings and the code commit, and keeps every response.
"""

from rilbench.ledger.database import Ledger, default_db
from rilbench.ledger.records import (
    Evaluation,
    Run,
    Sample,
    Score,
    latest,
    newest_first,
    utc_now,
)

__all__ = [
    "Evaluation",
    "Ledger",
    "Run",
    "Sample",
    "Score",
    "default_db",
    "latest",
    "newest_first",
    "utc_now",
]
