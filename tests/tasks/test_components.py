"""Where and in which number format a run computes."""

from pathlib import Path

import pytest
import torch

from sora_cli.errors import UsageError
from sora_cli.tasks.components import available_cores, choose_device, choose_dtype, choose_vae_dtype, cpu_has_bf16


@pytest.mark.parametrize(
    ("cpuinfo", "expected"),
    [
        ("processor : 0\nflags : fpu sse2 avx512_bf16 amx_tile\n", True),
        ("flags : fpu amx_bf16\n", True),
        ("flags : fpu avx2\nbugs : avx512_bf16\n", False),
        ("", False),
    ],
)
def test_cpu_has_bf16(tmp_path: Path, cpuinfo: str, expected: bool) -> None:
    file = tmp_path / "cpuinfo"
    file.write_text(cpuinfo)
    assert cpu_has_bf16(file) is expected
    assert not cpu_has_bf16(tmp_path / "absent")


def test_choose_dtype() -> None:
    cpu, cuda, mps = (torch.device(name) for name in ("cpu", "cuda", "mps"))
    assert choose_dtype("auto", cuda) is torch.bfloat16
    assert choose_dtype("auto", mps) is torch.float32
    assert choose_dtype("auto", cpu) is (torch.bfloat16 if cpu_has_bf16() else torch.float32)
    assert choose_dtype("fp16", cpu) is torch.float16


def test_an_autoencoder_never_computes_in_fp16(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu, cuda, mps = (torch.device(name) for name in ("cpu", "cuda", "mps"))
    assert choose_vae_dtype(torch.float32, cuda) is torch.float32
    assert choose_vae_dtype(torch.bfloat16, cuda) is torch.bfloat16
    for has_bf16, expected in ((True, torch.bfloat16), (False, torch.float32)):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda has_bf16=has_bf16, **_: has_bf16)
        monkeypatch.setattr("sora_cli.tasks.components.cpu_has_bf16", lambda has_bf16=has_bf16: has_bf16)
        assert choose_vae_dtype(torch.float16, cuda) is expected
        assert choose_vae_dtype(torch.float16, cpu) is expected
    assert choose_vae_dtype(torch.float16, mps) is torch.float32


def test_choose_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert choose_device("auto").type == choose_device("cpu").type == "cpu"
    with pytest.raises(UsageError, match="--device cuda is not available"):
        choose_device("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_device("auto").type == "cuda"


def test_threads_do_not_depend_on_how_busy_the_machine_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0, 2, 5}, raising=False)
    monkeypatch.setattr("os.getloadavg", lambda: (9.0, 9.0, 9.0))
    assert available_cores() == 3
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert available_cores() == 2
