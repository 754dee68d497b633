"""Find the distribution's bcc and import it from any interpreter.

bcc is not on the Python package index (the package of that name there is something else). It comes
with the distribution and is pure Python over ctypes, so it works from any virtual environment
once its folder is on the path.
"""

from __future__ import annotations

import importlib.util
import re
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
        for folder in sorted(root.glob(pattern), key=_version, reverse=True):
            if is_real_bcc(folder / "bcc"):
                return folder
    return None


def is_real_bcc(package: Path) -> bool:
    """Whether a folder is the BPF Compiler Collection and not a namesake."""
    return (package / "libbcc.py").is_file() and (package / "table.py").is_file()


def import_bcc(folder: Path) -> Any:
    """Import bcc from its folder, whatever else of that name is on the path.

    The folder is on the path only meanwhile, and last, for what bcc itself imports. Raises
    ImportError, or OSError where its library is missing, as the import does.
    """
    place = folder / "bcc" / "__init__.py"
    loaded = sys.modules.get("bcc")
    if loaded is not None and loaded.__file__ == str(place):
        return loaded
    for name in [name for name in list(sys.modules) if name.partition(".")[0] == "bcc"]:
        del sys.modules[name]  # a namesake, with parts of its own
    spec = importlib.util.spec_from_file_location("bcc", place)
    if spec is None or spec.loader is None:
        raise ImportError(f"{place} cannot be imported")
    module = importlib.util.module_from_spec(spec)
    sys.modules["bcc"] = module
    sys.path.append(str(folder))
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules["bcc"]
        raise
    finally:
        sys.path.remove(str(folder))
    return module


def _version(folder: Path) -> tuple[int, ...]:
    """Numbers in a folder's name, so that python3.12 comes after python3.9."""
    return tuple(int(number) for number in re.findall(r"\d+", str(folder)))
