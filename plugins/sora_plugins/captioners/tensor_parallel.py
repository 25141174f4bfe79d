"""One model over several processes, by the tensor parallelism of transformers.

The process that is asked is rank 0. It starts the others, which run this module and end with it, and tells them every
question: all ranks answer together, and the answers of rank 0 count.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path

from sora_cli.plugin.protocols import CaptionAnswer, CaptionQuestion

from .local_model import LocalCaptioner, Options, load_model


class Leader:
    """Rank 0, behind the interface of `sora_cli.plugin.protocols.Captioner`. needs: what lasts as long as it."""

    def __init__(self, captioner: LocalCaptioner, needs: Sequence[object]) -> None:
        self.captioner, self.needs = captioner, needs

    def __call__(self, questions: Sequence[CaptionQuestion]) -> list[CaptionAnswer]:
        """See the protocol."""
        import torch.distributed as dist

        dist.broadcast_object_list([list(questions)])
        return self.captioner(questions)


def lead(options: Options, device: str) -> Leader:
    """The model over `options.tensor_parallel` GPUs from this one on, or as many processes of the CPU."""
    size = options.tensor_parallel
    kind, _, index = device.partition(":")
    environ = dict(os.environ)
    if kind == "cuda":
        given = environ.get("CUDA_VISIBLE_DEVICES")
        visible = given.split(",") if given else [str(number) for number in range(int(index or 0) + size)]
        environ["CUDA_VISIBLE_DEVICES"] = ",".join(visible[int(index or 0) :][:size])
        os.environ["CUDA_VISIBLE_DEVICES"] = environ["CUDA_VISIBLE_DEVICES"]  # before CUDA starts in this process
    folder = tempfile.TemporaryDirectory(prefix="sora-")
    meeting = Path(folder.name) / "meeting"
    call = [sys.executable, "-m", __name__, options.model_dump_json(), kind, str(meeting)]
    followers = [
        subprocess.Popen([*call, str(rank)], env=environ, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
        for rank in range(1, size)
    ]
    return Leader(_join(options, kind, meeting, 0), [folder, *followers])


def _join(options: Options, kind: str, meeting: Path, rank: int) -> LocalCaptioner:
    """This rank's part of the model, once all ranks are there."""
    import torch
    import torch.distributed as dist

    device = torch.device("cpu")
    if kind == "cuda":
        device = torch.device("cuda", rank)
        torch.cuda.set_device(device)
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(options.tensor_parallel))
    dist.init_process_group(
        "nccl" if kind == "cuda" else "gloo",
        init_method=f"file://{meeting}",
        rank=rank,
        world_size=options.tensor_parallel,
    )
    return load_model(options, str(device))


def _follow(options: Options, kind: str, meeting: Path, rank: int) -> None:
    """Answer what rank 0 is asked, until it ends."""
    import torch.distributed as dist

    threading.Thread(target=_end_with_the_leader, daemon=True).start()
    captioner = _join(options, kind, meeting, rank)
    while True:
        asked: list[Sequence[CaptionQuestion]] = [()]
        dist.broadcast_object_list(asked)
        # What a question does to this rank it does to rank 0, who says so.
        with contextlib.suppress(Exception):
            captioner(asked[0])


def _end_with_the_leader() -> None:
    sys.stdin.buffer.read()  # nothing comes, and the end of it when the leader is gone
    os._exit(0)


if __name__ == "__main__":
    text, kind, meeting, rank = sys.argv[1:]
    _follow(Options.model_validate_json(text), kind, Path(meeting), int(rank))
