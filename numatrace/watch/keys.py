"""Keys out of the bytes that a terminal sends."""

from __future__ import annotations

import re

ARROWS = {"A": "up", "B": "down", "C": "right", "D": "left"}
SEQUENCE = re.compile(r"\x1b(?:[\[O]([0-9;]*)([A-Za-z~]))")
BEGUN = re.compile(r"\x1b(?:[\[O][0-9;]*)?\Z")
"""What more bytes may make a sequence of."""
LONGEST = 64


class Keys:
    """Takes bytes as they come, also half a sequence."""

    def __init__(self) -> None:
        self._rest = ""

    def feed(self, data: bytes) -> list[str]:
        """Return the keys: characters, `left`, `right`, `up`, `down`, `escape`; no others.

        An escape that may begin a sequence waits for what comes next; `b""`: nothing comes.
        """
        text, self._rest = self._rest + data.decode("utf-8", "replace"), ""
        keys, place = [], 0
        while place < len(text):
            found = SEQUENCE.match(text, place)
            if found is not None:
                keys += [ARROWS[found[2]]] if found[2] in ARROWS else []
                place = found.end()
            elif data and BEGUN.match(text, place) and len(text) - place < LONGEST:
                self._rest = text[place:]
                break
            else:
                keys.append("escape" if text[place] == "\x1b" else text[place])
                place += 1
        return keys
