"""A run's settings: their schema, the files that they are read from, and their validation."""

from rilbench.config.load import all_keys, known, load_recipe, read_recipe
from rilbench.config.schema import Recipe, Sampling
from rilbench.ril.methods import METHODS

__all__ = ["METHODS", "Recipe", "Sampling", "all_keys", "known", "load_recipe", "read_recipe"]
