"""The terminal while the live view has it: keys as they are pressed, and everything put back."""

from __future__ import annotations

import contextlib
import os
import select
import termios
import time
from typing import TYPE_CHECKING

from rich.console import Console, ConsoleDimensions, Group
from rich.live import Live

from numatrace.watch.keys import Keys

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from types import TracebackType
    from typing import TextIO

    from rich.text import Text

OFF = b"\0"
"""_POSIX_VDISABLE on Linux: no key has this meaning."""
SLICE_S = 0.1
"""Between two looks at the terminal's size."""


class Terminal:
    """A context: inside, the alternate screen is shown and `wait` hears keys."""

    def __init__(self, output: TextIO, input_fd: int) -> None:
        self.console = Console(file=output, force_terminal=True, legacy_windows=False)
        self.input_fd = input_fd
        self.output_fd = output.fileno()
        self._keys = Keys()
        self._gone = False
        self._exits = contextlib.ExitStack()
        self._live = Live(
            console=self.console,
            screen=True,
            auto_refresh=False,
            redirect_stdout=False,
            redirect_stderr=False,
        )

    def __enter__(self) -> Terminal:
        self._fit()
        with contextlib.ExitStack() as exits:
            exits.enter_context(_keys_at_once(self.input_fd))
            exits.enter_context(self._live)
            self._exits = exits.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with contextlib.suppress(*([OSError, termios.error] if self._gone else [])):
            self._exits.close()

    @property
    def size(self) -> tuple[int, int]:
        """Columns and rows, now."""
        try:
            size = os.get_terminal_size(self.output_fd)
        except OSError:  # it is gone
            return 80, 24
        return size.columns or 80, size.lines or 24

    def show(self, draw: Callable[[int, int], Sequence[Text]]) -> None:
        """Show the lines that `draw` makes for a width and height."""
        width, height = self._fit()
        lines = draw(width, height)
        for line in lines:
            line.no_wrap, line.overflow = True, "crop"
        try:
            self._live.update(Group(*lines), refresh=True)
        except OSError:
            self._gone = True

    def wait(
        self, seconds: float, on_key: Callable[[str], None], on_resize: Callable[[], None]
    ) -> bool:
        """Wait, and tell of keys and of a new size. Returns whether the terminal is still there."""
        until = time.monotonic() + seconds
        size = tuple(self.console.size)
        while True:
            left = max(0.0, until - time.monotonic())
            ready, _, _ = select.select([self.input_fd], [], [], min(left, SLICE_S))
            if not (self._read(on_key) if ready else self._silence(on_key)):
                return False
            if self._gone:
                return False
            if self.size != size:
                size = self.size
                on_resize()
            if time.monotonic() >= until:
                return True

    def _read(self, on_key: Callable[[str], None]) -> bool:
        try:
            data = os.read(self.input_fd, 1024)
        except OSError:
            return False
        for key in self._keys.feed(data):
            on_key(key)
        return bool(data)

    def _silence(self, on_key: Callable[[str], None]) -> bool:
        for key in self._keys.feed(b""):
            on_key(key)
        return True

    def _fit(self) -> tuple[int, int]:
        """Tell rich the size: by itself it would believe the variable COLUMNS."""
        width, height = self.size
        self.console.size = ConsoleDimensions(width, height)
        return width, height


@contextlib.contextmanager
def _keys_at_once(fd: int) -> Iterator[None]:
    """Have keys come without Return and unseen, Ctrl-C remain a signal, and Ctrl-Z nothing.

    Stopped, the recorder would lose events and leave the shell on the other screen.
    """
    before = termios.tcgetattr(fd)
    now = termios.tcgetattr(fd)
    now[3] &= ~(termios.ICANON | termios.ECHO)
    now[6][termios.VSUSP] = OFF
    now[6][termios.VMIN], now[6][termios.VTIME] = 1, 0
    termios.tcsetattr(fd, termios.TCSADRAIN, now)
    try:
        yield
    finally:
        termios.tcsetattr(fd, termios.TCSAFLUSH, before)
