"""Which linear layers ``policy.lora_targets`` means, by their names."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rilbench.errors import UserError

ALL_LINEAR = "all-linear"
"""verl's and peft's word for every linear layer but the head."""


def layers_to_adapt(linear: Iterable[str], targets: Sequence[str]) -> list[str]:
    """The layers that get an adapter.

    Args:
        linear: names of a model's linear layers, its head not among them.
        targets: ``all-linear``; or names of layers (``q_proj``), or of parts that hold some
            (``language_model``, ``layers.0``).

    Raises:
        UserError: a target that no layer has.
    """
    linear = list(linear)
    chosen: set[str] = set()
    for target in targets:
        found = named(linear, target)
        if not found:
            known = sorted({part for name in linear for part in name.split(".")})
            names = ", ".join(part for part in known if not part.isdigit())
            raise UserError(
                f"policy.lora_targets: no linear layer is named {target}, or is in a part of that "
                f"name (the head gets no adapter); take {ALL_LINEAR}, or some of {names}"
            )
        chosen.update(found)
    return [name for name in linear if name in chosen]


def discriminator_layers(decoder: Iterable[str], targets: Sequence[str]) -> list[str]:
    """The layers of the discriminator that get an adapter: it has the student's decoder alone.

    Args:
        decoder: names of the decoder's linear layers, as in the student.
        targets: the policy's; those that name no layer of the decoder are left out.

    Raises:
        UserError: none of them names one.
    """
    decoder = list(decoder)
    mine = [target for target in targets if named(decoder, target)]
    if not mine:
        raise UserError(
            f"policy.lora_targets={','.join(targets)} name no layer of the discriminator, which "
            "has no vision tower; set discriminator.lora_rank=0, or name others too"
        )
    return layers_to_adapt(decoder, mine)


def named(linear: Iterable[str], target: str) -> list[str]:
    """The layers that a target means: those of this name, or in a part of this name."""
    return [name for name in linear if target == ALL_LINEAR or f".{target}." in f".{name}."]
