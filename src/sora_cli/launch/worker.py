"""One process of a run on several: `python -m sora_cli.launch.worker run.json`, started by torchrun.

It reads the configuration that the parent resolved, plans again, which gives the same plan, joins the others and does
its share of the work.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
from pathlib import Path
from types import FrameType
from typing import Any

from sora_cli.errors import EXIT_INTERRUPTED, SoraError
from sora_cli.plugin.blame import hint_of, in_words

from .events import LostConnectionError, events_path, use_event_console


def main(run_file: Path) -> int:
    """Make this process's share; returns the exit code. Errors are written down for the parent."""
    signal.signal(signal.SIGTERM, _interrupt)
    rank = int(os.environ["RANK"])
    console = use_event_console(events_path(run_file.parent, int(os.environ["LOCAL_RANK"])), is_spokesman=rank == 0)
    try:
        work(json.loads(run_file.read_text(encoding="utf-8")))
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except SoraError as error:
        console.error(error)
        return error.exit_code
    except Exception as error:
        traceback.print_exc()
        if "gloo/transport" in str(error) or type(error).__name__.startswith("Dist"):
            console.error(LostConnectionError(f"process {rank} has no connection to the others", hint=str(error)))
            return 1
        console.error(SoraError(f"process {rank}: {in_words(error)}", hint="\n".join(hint_of(error))))
        return 1
    return 0


def work(run: dict[str, Any]) -> None:
    """Do this process's part of a run, and leave when all have done theirs."""
    import torch.distributed as dist

    if run.get("task") == "train":
        from sora_cli.tasks.train import train_in_process

        train_in_process(run)
    elif run.get("task") == "extract":
        from sora_cli.tasks.extract import extract_in_process

        extract_in_process(run)
    elif run.get("task") == "eval-loss":
        from sora_cli.evaluation.loss import measure_in_process

        measure_in_process(run)
    else:
        make_share(run)
    # The last to finish ends the run; leaving early would close connections that others still use.
    dist.barrier()
    dist.destroy_process_group()


def make_share(run: dict[str, Any]) -> None:
    """Plan, join the team and make the clips that fall to it. run: what `torchrun.run_file_content` wrote."""
    from sora_cli.conditioning.sources import Sources
    from sora_cli.config.resolve import Resolved
    from sora_cli.config.schema import GenerateConfig
    from sora_cli.plugin.manager import get_plugins
    from sora_cli.tasks.plan import plan_generate

    from .mesh import join_team

    plugins = get_plugins()
    resolved = Resolved(GenerateConfig.model_validate(run["config"]), run["origins"])
    plan = plan_generate(resolved, plugins, free_gib=run["free_gib"], sources=Sources(known=run["references"]))
    team = join_team(run["device"], run["sequence"])
    from sora_cli.tasks.sampling import make_clips

    make_clips(plan, plugins, done=frozenset(map(Path, run["done"])), team=team, is_tight=run.get("one_row", False))


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    # Without the usual end of the interpreter: after an error, libraries would wait there for processes that are gone.
    code = main(Path(sys.argv[1]))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
