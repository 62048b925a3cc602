"""What a forward and a backward of a model hold, counted tensor by tensor."""

from dataclasses import dataclass, field

import torch


@dataclass
class Saved:
    """Storages that autograd keeps for the backward, without parameters and inputs."""

    skip: set[int]
    bytes_of: dict[int, int] = field(default_factory=dict)
    largest_last: dict[int, int] = field(default_factory=dict)

    def pack(self, tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self.skip:
            self.bytes_of[storage.data_ptr()] = storage.nbytes()
            self.largest_last[storage.data_ptr()] = tensor.shape[-1] if tensor.dim() else 0
        return tensor

    def total(self, width=None):
        """Bytes in all; or of the tensors whose last axis has this width."""
        return sum(
            size
            for key, size in self.bytes_of.items()
            if width is None or self.largest_last[key] == width
        )


def saved_by(model, inputs, forward):
    """Run ``forward()`` and return what autograd keeps, and its result."""
    owned = [*model.parameters(), *model.buffers(), *inputs]
    saved = Saved({tensor.untyped_storage().data_ptr() for tensor in owned})
    with torch.autograd.graph.saved_tensors_hooks(saved.pack, lambda tensor: tensor):
        result = forward()
    return saved, result


def size(tensors):
    """Bytes of tensors."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
