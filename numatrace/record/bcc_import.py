"""Find the distribution's bcc and import it from any interpreter.

bcc is not on the Python package index (the package of that name there is something else). It comes
with the distribution and is pure Python over ctypes, so it works from any virtual environment
once its folder is on the path.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

FOLDERS = (
    "usr/lib/python3/dist-packages",  # Debian, Ubuntu
    "usr/lib/python3.*/site-packages",  # Fedora, RHEL, SUSE, Arch, Alpine
    "usr/lib64/python3.*/site-packages",
    "usr/local/lib/python3.*/dist-packages",  # built from source
    "usr/local/lib/python3.*/site-packages",
)


def find_bcc(root: Path = Path("/")) -> Path | None:
    """The folder that holds the real bcc package, newest Python first, or None."""
    for pattern in FOLDERS:
        for folder in sorted(root.glob(pattern), reverse=True):
            if is_real_bcc(folder / "bcc"):
                return folder
    return None


def is_real_bcc(package: Path) -> bool:
    """Whether a folder is the BPF Compiler Collection and not a namesake."""
    return (package / "libbcc.py").is_file() and (package / "table.py").is_file()


def import_bcc(folder: Path) -> Any:
    """Import bcc from its folder, which stays on the path only for the import.

    Raises ImportError or OSError (libbcc.so missing) as the import does.
    """
    if "bcc" in sys.modules:
        return sys.modules["bcc"]
    sys.path.append(str(folder))
    try:
        return importlib.import_module("bcc")
    finally:
        sys.path.remove(str(folder))
