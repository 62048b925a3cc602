"""Check this machine for what rilbench needs: ``rilbench doctor``."""

from rilbench.doctor.check_result import CheckResult
from rilbench.doctor.checks import examine

__all__ = ["CheckResult", "examine"]
