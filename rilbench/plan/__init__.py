"""Estimate a run's memory, time, disk and calls by arithmetic alone, without GPU and torch."""

from rilbench.plan.architecture import Architecture, find_architecture
from rilbench.plan.assumptions import Assumptions
from rilbench.plan.fit import check_fit
from rilbench.plan.run_plan import RunPlan, make_plan

__all__ = [
    "Architecture",
    "Assumptions",
    "RunPlan",
    "check_fit",
    "find_architecture",
    "make_plan",
]
