"""Running a network whose weights do not fit on the device: blocks are fetched one by one.

The weights of the blocks stay in main memory (pinned for a GPU). Before a block runs, its weights are copied to the
device; on a GPU the next block's copy overlaps with the work of this one on a stream of its own. Results are the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn


class BlockOffload:
    """Keeps the blocks of a network off the device except while they run. `remove` ends it."""

    def __init__(self, blocks: Sequence[nn.Module], device: torch.device) -> None:
        """blocks: in the order in which they run, their weights in main memory; the rest is on `device` already."""
        self.blocks, self.device = list(blocks), device
        self._pinned = device.type == "cuda"
        self._stream = torch.cuda.Stream(device) if self._pinned else None
        self._host = [_tensors_of(block, pin=self._pinned) for block in self.blocks]
        self._ready: dict[int, tuple[list[Tensor], Any]] = {}
        self._hooks = []
        for index, block in enumerate(self.blocks):
            self._hooks.append(block.register_forward_pre_hook(lambda *_, index=index: self._enter(index)))
            self._hooks.append(block.register_forward_hook(lambda *_, index=index: self._leave(index)))

    def remove(self) -> None:
        """Leave the weights in main memory and stop moving them."""
        for hook in self._hooks:
            hook.remove()
        self._ready.clear()

    def _enter(self, index: int) -> None:
        copies, event = self._ready.pop(index) if index in self._ready else self._fetch(index)
        if event is not None:
            torch.cuda.current_stream(self.device).wait_event(event)
            for copy in copies:  # the allocator must not reuse them before this stream is done with them
                copy.record_stream(torch.cuda.current_stream(self.device))
        for (holder, _), copy in zip(self._host[index], copies, strict=True):
            holder.data = copy
        if self._stream is not None and len(self.blocks) > 1:
            following = (index + 1) % len(self.blocks)
            if following not in self._ready:
                self._ready[following] = self._fetch(following)

    def _leave(self, index: int) -> None:
        for holder, kept in self._host[index]:
            holder.data = kept

    def _fetch(self, index: int) -> tuple[list[Tensor], Any]:
        tensors = [kept for _, kept in self._host[index]]
        if self._stream is None:
            return [tensor.to(self.device, copy=True) for tensor in tensors], None
        with torch.cuda.stream(self._stream):
            copies = [tensor.to(self.device, non_blocking=True) for tensor in tensors]
            event = torch.cuda.Event()
            event.record(self._stream)
        return copies, event


def _tensors_of(block: nn.Module, *, pin: bool) -> list[tuple[Tensor, Tensor]]:
    """Parameters and buffers of a block, each with its weights in main memory."""
    found = []
    for holder in (*block.parameters(), *block.buffers()):
        kept = holder.data.to("cpu")
        kept = kept.pin_memory() if pin else kept
        holder.data = kept
        found.append((holder, kept))
    return found


def offload_blocks(part: Any, device: torch.device) -> BlockOffload | None:
    """Offload the blocks of a part that is in main memory and put everything else of it on the device.

    None when the part names no blocks; it is then moved as a whole.
    """
    if not hasattr(part, "blocks"):
        part.to(device)
        return None
    blocks = list(part.blocks())
    inside = {id(holder) for block in blocks for holder in (*block.parameters(), *block.buffers())}
    network = part if isinstance(part, nn.Module) else part.network
    for holder in (*network.parameters(), *network.buffers()):
        if id(holder) not in inside:
            holder.data = holder.data.to(device)
    return BlockOffload(blocks, device)
