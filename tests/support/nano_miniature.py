"""What the tests of making nano share."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

Solver = Callable[[Tensor], tuple[Tensor, Tensor]]


def call(main: Callable[[], None], *arguments: object) -> None:
    """Run the main function of a script with these arguments."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["script", *map(str, arguments)])
        main()


def quick_eigh(full: Solver) -> Solver:
    """Stands for torch.linalg.eigh where only the largest matter: a full one of this size takes most of a minute."""
    return lambda matrix: _leading(matrix) if len(matrix) > 1000 else full(matrix)


def _leading(matrix: Tensor) -> tuple[Tensor, Tensor]:
    basis = torch.linalg.qr(torch.randn(len(matrix), 48, generator=torch.Generator().manual_seed(1)))[0]
    for _ in range(6):
        basis = torch.linalg.qr(matrix @ basis)[0]
    values, small = torch.linalg.eigh(basis.T @ matrix @ basis)
    return values, basis @ small
