"""Signals that end what a verb is at, and not the program."""

from __future__ import annotations

import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@contextmanager
def ended_by(numbers: tuple[signal.Signals, ...], stop: Callable[[str], None]) -> Iterator[None]:
    """Have these signals call `stop` with the reason, as long as the block runs."""
    old = {number: signal.signal(number, lambda *_: stop("interrupted")) for number in numbers}
    try:
        yield
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
