"""What all tests in the guest want: a kernel that moves nothing by itself."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

BALANCING = Path("/proc/sys/kernel/numa_balancing")


@pytest.fixture(scope="session", autouse=True)
def no_balancing() -> Iterator[None]:
    """NUMA balancing moves pages and threads while their places are compared with a plan."""
    before = BALANCING.read_text() if BALANCING.exists() else None
    if before is not None:
        BALANCING.write_text("0\n")
    yield
    if before is not None:
        BALANCING.write_text(before)
