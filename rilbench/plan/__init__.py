"""What a run would need, by arithmetic alone: memory, time, disk, calls. No GPU, no torch."""

from rilbench.plan.architecture import Architecture, find_architecture
from rilbench.plan.assumptions import Assumptions
from rilbench.plan.fit import check_fit
from rilbench.plan.run_plan import Plan, make_plan

__all__ = [
    "Architecture",
    "Assumptions",
    "Plan",
    "check_fit",
    "find_architecture",
    "make_plan",
]
