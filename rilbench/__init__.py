"""rilbench: RIL (Unified Reinforcement and Imitation Learning) for vision-language models.

The first open implementation of the paper, and the bench that proves it. This package imports
nothing heavy: torch, verl and the kits are loaded by the verb that needs them.
"""

__version__ = "0.1.0"
