"""Whether a trace may be written somewhere, and what it means when it cannot.

Imports nothing heavy: the recorder asks before it loads Arrow.
"""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

from numatrace.model.errors import TraceError, UsageError

if TYPE_CHECKING:
    from pathlib import Path


def check_output(path: Path, *, force: bool) -> None:
    """Raise UsageError unless a trace may be written to `path`."""
    what = f"cannot write {path}"
    if not path.parent.is_dir():
        raise UsageError(
            what, f"there is no folder {path.parent}", "create it or choose another -o"
        )
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    except OSError as error:
        raise disk_error(path, error) from error
    if not stat.S_ISREG(mode):
        raise UsageError(what, "it is a link, a folder or a device", "choose another file with -o")
    if not force:
        raise UsageError(
            what, "it exists already", "choose another -o FILE, or overwrite with --force"
        )


def disk_error(path: Path, error: OSError) -> TraceError:
    """What an OSError of the trace file means to the user."""
    reason = error.strerror or str(error)
    todo = "free some space or choose another disk with -o; what was written before can be analyzed"
    if isinstance(error, PermissionError):
        todo = "choose a folder that you may write to with -o"
    return TraceError(f"cannot write {path}", reason, todo)
