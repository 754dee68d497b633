"""Where an export's bytes go: any binary stream, also one that cannot tell its position."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import BinaryIO


class Sink:
    """A stream as Arrow wants it, which stays open when Arrow is done with it."""

    closed = False

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.bytes_written = 0

    def write(self, data: bytes) -> int:
        """Write all of it."""
        count = self._stream.write(data)
        self.bytes_written += count
        return count

    def tell(self) -> int:
        """Return the number of bytes written."""
        return self.bytes_written

    def flush(self) -> None:
        """Hand on what waits."""
        self._stream.flush()

    def writable(self) -> bool:
        """Return that it can be written."""
        return True

    def close(self) -> None:
        """Stay open."""
