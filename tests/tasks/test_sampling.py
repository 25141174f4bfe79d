"""What a run does when sampling fails."""

import numpy as np
import pytest
import torch

from sora_cli.tasks.sampling import is_out_of_memory


def test_no_memory_on_the_cpu_is_recognised() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)
    with pytest.raises(MemoryError) as caught_numpy:
        np.empty(2**60, np.uint8)
    assert is_out_of_memory(caught_numpy.value)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), True),
        (RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
    ],
)
def test_other_errors_are_not_about_memory(error: Exception, expected: bool) -> None:
    assert is_out_of_memory(error) is expected
