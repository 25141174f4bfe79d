"""`python parent_of_workers.py KIND`: starts a worker as the program does, which says so and is never done."""

import sys
import threading
from collections.abc import Iterator

from torch.utils.data import DataLoader, IterableDataset

from sora_cli.data.row_map import RowMap
from sora_cli.data.work import Work
from sora_cli.training.dataset import prepare_worker, worker_context


def wait_forever(*_: object) -> None:
    """Say so, and wait."""
    print("waiting", flush=True)
    threading.Event().wait()


def make(options: object, device: str) -> object:
    """A function of rows that waits."""
    return wait_forever


class Endless(IterableDataset[int]):
    """Items that never come."""

    def __iter__(self) -> Iterator[int]:
        wait_forever()
        yield 0


if __name__ == "__main__":
    if sys.argv[1] == "loader":
        workers = {"num_workers": 1, "worker_init_fn": prepare_worker, "multiprocessing_context": worker_context()}
        next(iter(DataLoader(Endless(), **workers)))
    with RowMap(2) as rows:
        if sys.argv[1] == "files":
            rows.of_files(Work("wait", "parent_of_workers:make", {}, (), {}), [{}])
        rows(wait_forever, [0], least=1)
