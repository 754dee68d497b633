"""A stand-in for `ollama list`, `show`, `cp` and `create`: `modelfiles.py FOLDER VERB ...`.

A model is a name, the file with its weights, and parameters. Only what a fix calls is there.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

SERVED = "served:latest"
"""The model that the server loads."""

Models = dict[str, dict[str, str]]
"""Parameters by the model's name."""


def add(folder: Path, blob: Path) -> None:
    """Begin with one model, whose weights are in that file."""
    (folder / "blob").write_text(str(blob))
    _save(folder, {SERVED: {}})


def server_options(folder: Path) -> list[str]:
    """What the served model's parameters come to on llama-server's command line."""
    threads = _models(folder)[SERVED].get("num_thread")
    return [] if threads is None else ["--threads", threads]


def show(folder: Path, name: str) -> str:
    """The model's Modelfile."""
    parameters = _models(folder)[name].items()
    lines = [f"PARAMETER {key} {value}" for key, value in parameters]
    return "\n".join([f"FROM {(folder / 'blob').read_text()}", *lines])


def create(folder: Path, name: str, modelfile: str) -> None:
    """Make a model of another one and parameters, or change it."""
    models = _models(folder)
    for line in modelfile.splitlines():
        word, _, rest = line.partition(" ")
        if word == "FROM":
            models[name] = dict(models[rest])
        elif word == "PARAMETER":
            key, _, value = rest.partition(" ")
            models[name][key] = value
    _save(folder, models)


def copy(folder: Path, source: str, target: str) -> None:
    """Give a model a second name."""
    models = _models(folder)
    _save(folder, models | {target: models[source]})


def main() -> int:
    """Do one of them."""
    folder, verb, *words = Path(sys.argv[1]), *sys.argv[2:]
    match verb, words:
        case "list", []:
            print("NAME\tID\tSIZE\tMODIFIED")
            print("\n".join(f"{name}\t0\t24 MB\tnow" for name in _models(folder)))
        case "show", ["--modelfile", name]:
            print(show(folder, name))
        case "cp", [source, target]:
            copy(folder, source, target)
        case "create", [name, "-f", path]:
            create(folder, name, Path(path).read_text())
        case _:
            print(f"not in this stand-in: {verb} {words}", file=sys.stderr)
            return 2
    return 0


def _models(folder: Path) -> Models:
    models: Models = json.loads((folder / "models.json").read_text())
    return models


def _save(folder: Path, models: Models) -> None:
    (folder / "models.json").write_text(json.dumps(models))


if __name__ == "__main__":
    sys.exit(main())
