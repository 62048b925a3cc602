"""Registered rewards: functions of the user's that a recipe names in ``reward.extra``.

A name is an entry point of an installed package (group ``rilbench.rewards``), or a function in a
file: ``brevity.py:brevity``. `rilbench.ril.rewards.Reward` is what the function must look like.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rilbench.errors import UserError
from rilbench.plugins import load_function, load_plugins

if TYPE_CHECKING:  # it imports torch, and the command line loads this module first
    from rilbench.ril.rewards import Reward


def load_rewards(names: Iterable[str]) -> dict[str, Reward]:
    """Return the functions of ``reward.extra``, by the name that metrics and rollouts use.

    Raises:
        UserError: a name is unknown or given twice, or its function cannot be loaded.
    """
    names = list(names)
    rewards: dict[str, Reward] = {}
    plugins = load_plugins("rilbench.rewards") if names else {}
    for name in names:
        file, separator, function = name.rpartition(":")
        short = function if separator else name
        if short in rewards:
            raise UserError(f"reward.extra names {short!r} twice; leave one out")
        if separator:
            rewards[short] = load_function(Path(file), function, "reward.extra")
        elif name in plugins:
            rewards[short] = _callable(plugins[name], name)
        else:
            known = f"; installed: {', '.join(sorted(plugins))}" if plugins else ""
            raise UserError(
                f"reward.extra: there is no reward {name!r}{known}; name a function in a file as "
                f"FILE.py:FUNCTION"
            )
    return rewards


def _callable(reward: Any, name: str) -> Reward:
    if not callable(reward):
        raise UserError(f"reward.extra: {name} is not a function; see rilbench.ril.rewards.Reward")
    function: Reward = reward
    return function
