"""The ledger: every score with its story, in one SQLite file.

A score names its model, data, kit, metric and judge; its evaluation names the suite, the settings
and the code that made it; every answer is kept.
"""

from rilbench.ledger.database import Ledger, default_db
from rilbench.ledger.records import Evaluation, Run, Sample, Score, latest, utc_now

__all__ = ["Evaluation", "Ledger", "Run", "Sample", "Score", "default_db", "latest", "utc_now"]
