"""The checks of `sora doctor`. Each looks at one thing and never stops the others."""

from __future__ import annotations

import functools
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

from .errors import SoraError
from .installation import REINSTALL, checkout_folder, stale_entry_points
from .plugin.blame import in_words
from .plugin.manager import SLOW_MS, Plugins
from .plugin.specs import CheckResult, Spec

# A clip is a few megabytes and the largest released model about 40 GB with its text encoder.
LITTLE_OUTPUT_GIB = 1.0
LITTLE_CACHE_GIB = 20.0
GIB = 2**30


class Finding(NamedTuple):
    """What one check found."""

    title: str
    result: CheckResult

    def row(self) -> dict[str, Any]:
        """As printed with --json."""
        return {
            "check": self.title,
            "status": self.result.status,
            "text": self.result.text,
            "hint": self.result.hint,
        }


def examine(plugins: Plugins) -> list[Finding]:
    """Run all checks: ours, then those of plugins (`sora_checks`)."""
    ours: dict[str, Callable[[], CheckResult]] = {
        "Python": check_python,
        "installation": check_installation,
        "plugins": lambda: check_plugins(plugins),
        "torch": check_torch,
        "GPU": check_gpu,
        "memory": lambda: check_memory(plugins),
        "video codecs": check_codecs,
        "cache": check_cache,
        "disk": check_disk,
        "Hugging Face token": check_hub_token,
        "OpenAI key": check_openai_key,
    }
    findings = [Finding(title, _run(check)) for title, check in ours.items()]
    for spec in plugins.specs("check").values():
        findings.append(Finding(spec.name, _run(functools.partial(_check_of_plugin, plugins, spec))))
    return findings


def has_failed(findings: Sequence[Finding]) -> bool:
    """Whether something needs to be repaired."""
    return any(finding.result.status == "fail" for finding in findings)


def report(findings: Sequence[Finding], *, only_problems: bool = False) -> str:
    """One line per check, with what to do below those that are not in order."""
    width = max(len(finding.title) for finding in findings)
    lines = []
    for title, result in findings:
        if only_problems and result.status == "ok":
            continue
        lines.append(f"{result.status:<4}  {title:<{width}}  {result.text}")
        if result.hint and result.status != "ok":
            lines.extend(f"      {'':<{width}}  -> {line}" for line in result.hint.splitlines())
    return "\n".join(lines)


def check_python() -> CheckResult:
    """Python 3.10 to 3.13."""
    text = f"{sys.version_info.major}.{sys.version_info.minor}.{sys.version_info.micro} at {sys.executable}"
    if (3, 10) <= sys.version_info[:2] <= (3, 13):
        return CheckResult("ok", text)
    return CheckResult("warn", text, "sora is tested with Python 3.10 to 3.13")


def check_installation() -> CheckResult:
    """The package is installed, and an editable installation knows all plugins of its checkout."""
    folder = checkout_folder()
    where = f"checkout {folder}" if folder else str(Path(__file__).parent)
    try:
        text = f"sora-cli {version('sora-cli')}, {where}"
    except PackageNotFoundError:
        return CheckResult("fail", f"sora-cli is not installed; its code runs from {where}", "run `pip install .`")
    stale = stale_entry_points(folder)
    if stale:
        return CheckResult("warn", f"{text}; plugins changed since it was installed: {', '.join(stale)}", REINSTALL)
    return CheckResult("ok", text)


def check_plugins(plugins: Plugins) -> CheckResult:
    """No plugin is broken or slow to load."""
    from .plugin.kinds import KINDS

    clashes = [clash for kind in KINDS for clash in plugins.clashes(kind).values()]
    count = len(plugins.points)
    if clashes:
        return CheckResult("fail", "; ".join(clash.message for clash in clashes), clashes[0].hint)
    if plugins.broken:
        reasons = "; ".join(f"{each.name}: {each.reason}" for each in plugins.broken)
        return CheckResult("warn", f"{len(plugins.broken)} of {count} broken: {reasons}", "update or uninstall them")
    slow = {name: ms for name, ms in plugins.load_ms.items() if ms > SLOW_MS}
    if slow:
        names = ", ".join(f"{name} {ms:.0f} ms" for name, ms in slow.items())
        hint = "their hook modules import too much; name implementations as strings instead"
        return CheckResult("warn", f"{count} loaded, slowly: {names} (more than {SLOW_MS:.0f} ms)", hint)
    return CheckResult("ok", f"{count} loaded in {sum(plugins.load_ms.values()):.0f} ms: {', '.join(plugins.points)}")


def check_torch() -> CheckResult:
    """torch can be imported."""
    import torch

    backends = [name for name, there in (("CUDA", torch.version.cuda), ("MPS", _has_mps())) if there]
    return CheckResult("ok", f"{torch.__version__}, built for {' and '.join(['CPU', *backends])}")


def check_gpu() -> CheckResult:
    """The GPUs that torch sees; none is fine, but a GPU that torch cannot use is worth a word."""
    import torch

    if torch.cuda.is_available():
        gpus = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
        return CheckResult("ok", ", ".join(f"{gpu.name} {gpu.total_memory / GIB:.0f} GiB" for gpu in gpus))
    if _has_mps():
        return CheckResult("ok", "Apple GPU (mps)")
    if shutil.which("nvidia-smi"):
        hint = "install a torch build for your CUDA driver: https://pytorch.org/get-started/locally/"
        return CheckResult("warn", "an NVIDIA driver is installed, but torch cannot use it", hint)
    return CheckResult("ok", f"none; the {os.cpu_count()} CPU cores are used, slow for large models")


#: Sizes that the memory line tries, largest first.
MEMORY_SIZES = tuple((res, length) for res in ("720p", "480p", "360p", "240p") for length in ("16s", "4s", "2s"))


def check_memory(plugins: Plugins) -> CheckResult:
    """The largest clip that each model with an estimate could make on this machine's GPU."""
    from .config.resolve import resolve_generate
    from .launch.machine import gpu_memory_gib
    from .plugin.specs import ModelSpec
    from .tasks.plan import plan_generate

    if gpu_memory_gib() == 0:
        return CheckResult("ok", "no GPU to plan for; on a CPU the main memory is used")
    found = []
    for spec in plugins.specs("model").values():
        if not isinstance(spec, ModelSpec) or spec.memory is None:
            continue
        for resolution, duration in MEMORY_SIZES:
            flags: dict[str, dict[str, Any]] = {
                "prompt": {"prompts": ("x",)},
                "model": {"name": spec.name},
                "shape": {"resolution": resolution, "duration": duration},
            }
            try:
                plan = plan_generate(resolve_generate(flags, plugins=plugins), plugins, need_weights=False)
            except SoraError:
                continue
            memory = plan.memory
            found.append(f"{spec.name} up to {resolution} {duration} ({memory.peak:.1f} GiB, offload {memory.offload})")
            break
        else:
            found.append(f"{spec.name} does not fit")
    return CheckResult("ok", f"{gpu_memory_gib():.1f} GiB on the GPU: {'; '.join(found)}")


def check_codecs() -> CheckResult:
    """H.264 can be written and read, through the FFmpeg libraries inside PyAV."""
    import av

    text = f"PyAV {av.__version__}"
    for name, use in (("libx264", "write"), ("h264", "read")):
        try:
            av.codec.Codec(name, "w" if use == "write" else "r")
        except Exception as reason:
            hint = "install PyAV from a wheel: pip install --force-reinstall --only-binary av av"
            return CheckResult("fail", f"{text} cannot {use} H.264 ({name}: {reason})", hint)
    return CheckResult("ok", f"{text}, writes and reads H.264")


def check_cache() -> CheckResult:
    """The folder of downloaded weights can be written to, and has room."""
    from huggingface_hub.constants import HF_HUB_CACHE

    folder = Path(HF_HUB_CACHE)
    existing = _nearest_existing(folder)
    free = shutil.disk_usage(existing).free / GIB
    text = f"{folder}, {free:.0f} GiB free"
    if not os.access(existing, os.W_OK):
        return CheckResult("fail", f"{text}, but not writable", "set HF_HOME to a folder you may write to")
    if free < LITTLE_CACHE_GIB:
        hint = "the large models need 10 to 40 GiB; set HF_HOME to a larger disk"
        return CheckResult("warn", text, hint)
    return CheckResult("ok", text)


def check_disk() -> CheckResult:
    """There is room for videos in the current folder."""
    free = shutil.disk_usage(Path.cwd()).free / GIB
    text = f"{free:.1f} GiB free in the current folder"
    if free < LITTLE_OUTPUT_GIB:
        return CheckResult("warn", text, "write elsewhere with -o, or make room")
    return CheckResult("ok", text)


def check_hub_token() -> CheckResult:
    """Whether a token was found; its text is never shown."""
    from huggingface_hub import get_token

    return CheckResult("ok", "found" if get_token() else "not found; only gated models need one (`hf auth login`)")


def check_openai_key() -> CheckResult:
    """Whether a key was found; its text is never shown."""
    found = bool(os.environ.get("OPENAI_API_KEY"))
    return CheckResult("ok", "found" if found else "not found; only prompt refinement needs one (OPENAI_API_KEY)")


def _check_of_plugin(plugins: Plugins, spec: Spec) -> Any:
    return plugins.load_target(spec)()


def _run(check: Callable[[], Any]) -> CheckResult:
    try:
        result = check()
    except SoraError as error:
        return CheckResult("fail", error.message, error.hint)
    except Exception as reason:
        return CheckResult("fail", in_words(reason))
    if not isinstance(result, CheckResult):
        return CheckResult("fail", f"the check returned {type(result).__name__}, not a CheckResult")
    return result


def _has_mps() -> bool:
    import torch

    return bool(torch.backends.mps.is_available())


def _nearest_existing(folder: Path) -> Path:
    return next(path for path in (folder, *folder.parents) if path.exists())
