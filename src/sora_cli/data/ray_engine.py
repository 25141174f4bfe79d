"""Work on a Ray cluster: Ray Data deals out the jobs, and every actor does them in a process of its own.

Files must be where every machine finds them under the same path, on a shared disk or in an object store.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sora_cli.errors import MissingError, SoraError

from .local import Workers
from .work import Job, Made, Outcome, Work


@dataclass
class RayEngine:
    """A cluster. address: of its head, "auto" for the one this machine is part of, None for one on this machine alone.

    workers: actors, None for one per core of the cluster; gpus: whether each has a GPU of its own.
    """

    address: str | None = None
    workers: int | None = None
    gpus: bool = False

    def run(self, work: Work, jobs: Iterator[Job]) -> Iterator[Sequence[Outcome]]:
        """See `work.Engine`."""
        ray = _ray()
        own = not ray.is_initialized()
        if own:
            try:
                _check_reachable(self.address)
                ray.init(address=self.address, log_to_driver=False, logging_level="ERROR", include_dashboard=False)
            except (OSError, RuntimeError, ValueError) as error:
                raise SoraError(
                    f"there is no Ray cluster at {self.address}: {error}", hint="start one with `ray start --head`"
                ) from error
        try:
            yield from self._outcomes(ray, work, jobs)
        finally:
            if own:
                ray.shutdown()

    def _outcomes(self, ray: Any, work: Work, jobs: Iterator[Job]) -> Iterator[Sequence[Outcome]]:
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        resources = ray.cluster_resources()
        limit = int(resources.get("GPU" if self.gpus else "CPU", 1))
        if self.gpus and not resources.get("GPU"):
            raise SoraError("the Ray cluster has no GPU", hint="leave --gpus out")
        texts = [_pack(job) for job in jobs]
        count = max(1, min(self.workers or limit, limit, len(texts)))
        # A job a block, so that a slow one holds up no other.
        made = ray.data.from_items(
            [{"job": text} for text in texts], override_num_blocks=max(1, len(texts))
        ).map_batches(
            _Actor,
            fn_constructor_args=(asdict(work), "cuda:0" if self.gpus else "cpu"),
            batch_size=1,
            num_cpus=1,
            num_gpus=1 if self.gpus else 0,
            compute=ray.data.ActorPoolStrategy(size=count),
        )
        for row in made.iter_rows():
            yield _unpack(row["outcomes"])


class _Actor:
    """Does jobs in a process that is stopped when it hangs, as on one machine."""

    def __init__(self, work: Mapping[str, Any], device: str) -> None:
        self.workers = Workers(Work(**work), (device,))

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, list[str]]:
        return {"outcomes": [self._do(str(text)) for text in batch["job"]]}

    def _do(self, text: str) -> str:
        content = json.loads(text)
        try:
            done = [each for some in self.workers.do(iter([Job(**content)])) for each in some]
        except SoraError as error:  # for the one who started it, not for Ray, which would try again
            return json.dumps({"error": [error.message, error.hint, error.exit_code]})
        return json.dumps([[key, made.rows, made.reason] for key, made in done])


def _pack(job: Job) -> str:
    return json.dumps(job._asdict())


def _unpack(text: str) -> list[Outcome]:
    content = json.loads(text)
    if isinstance(content, dict):
        message, hint, exit_code = content["error"]
        raise SoraError(message, hint=hint, exit_code=exit_code)
    return [Outcome(key, Made(rows, reason)) for key, rows, reason in content]


def _check_reachable(address: str | None) -> None:
    """Raise OSError when nobody listens there: Ray itself tries for minutes."""
    host, _, port = (address or "").removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host, int(port)), timeout=10).close()


def _ray() -> Any:
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise MissingError("the package ray is missing", hint="pip install 'sora-cli[ray]'") from error
    return ray
