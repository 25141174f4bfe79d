"""Counting the memory of tensors on any device."""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of tensors that were made and are still there.

    apart_from: modules whose weights do not count.
    """

    def __init__(self, *apart_from: nn.Module) -> None:
        super().__init__()
        self.now = self.peak = 0
        # Views of a weight share its memory; they are not made here.
        self.seen = {
            tensor.untyped_storage().data_ptr() for module in apart_from for tensor in module.state_dict().values()
        }

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if not isinstance(tensor, torch.Tensor):
                continue
            storage = tensor.untyped_storage()
            if storage.data_ptr() in self.seen or storage.nbytes() == 0:
                continue
            self.seen.add(storage.data_ptr())
            self.now += storage.nbytes()
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._gone, storage.data_ptr(), storage.nbytes())
        return out

    def _gone(self, pointer: int, size: int) -> None:
        self.seen.discard(pointer)
        self.now -= size
