"""rilbench: Unified Reinforcement and Imitation Learning (RIL) for vision-language models.

The first open implementation of the paper, and the bench that proves it. The commands are in
``rilbench --help``; this is the Python API::

    recipe = rilbench.load_recipe("both", "nano", overrides=["schedule.steps=10"])
    questions = rilbench.read_questions(Path("train.parquet"))
    with rilbench.Ledger.open_read(Path("rilbench.db")) as ledger:
        scores = [evaluation.scores for evaluation in ledger.evaluations()]

A name is imported when it is first used: ``import rilbench`` loads neither torch nor verl.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rilbench.checkpoint import Checkpoint, inspect_checkpoint
    from rilbench.config import Recipe, known, load_recipe, read_recipe
    from rilbench.data.question import Question
    from rilbench.data.question_files import iter_questions, read_questions, write_questions
    from rilbench.errors import UserError, UserNotice
    from rilbench.evaluate.options import EvalOptions
    from rilbench.evaluate.run import evaluate_many
    from rilbench.ledger import Evaluation, Ledger, Sample, Score

__version__ = "0.1.0"

__all__ = [
    "Checkpoint",
    "EvalOptions",
    "Evaluation",
    "Ledger",
    "Question",
    "Recipe",
    "Sample",
    "Score",
    "UserError",
    "UserNotice",
    "__version__",
    "evaluate_many",
    "inspect_checkpoint",
    "iter_questions",
    "known",
    "load_recipe",
    "read_questions",
    "read_recipe",
    "write_questions",
]

_MODULES = {
    "Checkpoint": "rilbench.checkpoint",
    "EvalOptions": "rilbench.evaluate.options",
    "Evaluation": "rilbench.ledger",
    "Ledger": "rilbench.ledger",
    "Question": "rilbench.data.question",
    "Recipe": "rilbench.config",
    "Sample": "rilbench.ledger",
    "Score": "rilbench.ledger",
    "UserError": "rilbench.errors",
    "UserNotice": "rilbench.errors",
    "evaluate_many": "rilbench.evaluate.run",
    "inspect_checkpoint": "rilbench.checkpoint",
    "iter_questions": "rilbench.data.question_files",
    "known": "rilbench.config",
    "load_recipe": "rilbench.config",
    "read_questions": "rilbench.data.question_files",
    "read_recipe": "rilbench.config",
    "write_questions": "rilbench.data.question_files",
}

if not TYPE_CHECKING:  # A type checker sees the imports above, and refuses any other name.

    def __getattr__(name):
        """Import a name of the API from its module."""
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module

        return getattr(import_module(_MODULES[name]), name)

    def __dir__():
        return __all__
