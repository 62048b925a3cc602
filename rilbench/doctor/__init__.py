"""What is there, what is missing, and what is wrong on this machine: ``rilbench doctor``."""

from rilbench.doctor.checks import examine
from rilbench.doctor.finding import Finding

__all__ = ["Finding", "examine"]
