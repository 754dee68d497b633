"""What the fix of each situation must have achieved, judged by the second recording."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from numatrace.model.cpulist import parse_cpulist

if TYPE_CHECKING:
    from collections.abc import Callable

    Json = dict[str, Any]

EVEN = 0.10
"""Weights per node within 10 points of even count as spread."""
TOGETHER = 0.97
REMOTE = 0.05
FEWER_MOVES = 10


@dataclass(frozen=True, slots=True)
class Done:
    """What there is to judge a fix by."""

    before: Json
    """The report of the first recording."""
    after: Json
    comparison: Json
    script: str
    """The fix as it was run."""

    @property
    def weights(self) -> dict[int, float]:
        """Share of the weights on each node afterwards."""
        return {
            node["node"]: figure["value"]
            for node in self.comparison["nodes"]
            if (figure := node["weights_share"]["after"]) is not None
        }

    @property
    def remote(self) -> float | None:
        """Remote share of the reads of weights afterwards."""
        figure = self.comparison["remote_share"]["after"]
        return None if figure is None else figure["value"]

    @property
    def server(self) -> Json:
        """The server's row in the second report."""
        return next(each for each in self.after["processes"] if each["is_server"])

    @property
    def said(self) -> str:
        """All sentences of the first report that are not about figures."""
        texts = list(self.before["corrections"])
        for finding in self.before["findings"]:
            texts += [finding["sentence"], *finding["notes"]]
            texts += [note for fix in finding["fixes"] for note in fix["notes"]]
            texts += [each["text"] for each in finding["evidence"]]
        return " ".join(texts)


def spread_or_together(done: Done) -> bool:
    """Weights evenly on the nodes, or all on one."""
    shares = done.weights
    even = 1 / len(shares)
    spread = all(abs(share - even) <= EVEN for share in shares.values())
    return spread or max(shares.values()) >= TOGETHER


def local(done: Done) -> bool:
    """Hardly any remote reads."""
    return done.remote is not None and done.remote < REMOTE


def few_moves(done: Done) -> bool:
    """A tenth of the moves between nodes, or fewer."""
    [change] = [each["change"] for each in done.comparison["figures"] if "moves" in each["name"]]
    before, after = change["before"]["value"], change["after"]["value"]
    return bool(after * FEWER_MOVES <= before)


def cpuset_agrees(done: Done) -> bool:
    """Its CPUs are on the nodes that it may take memory from."""
    cpus = set(parse_cpulist(done.server["allowed_cpus"]))
    mems = set(parse_cpulist(done.server["allowed_nodes"]))
    nodes = {
        node["node"]
        for node in done.after["machine"]["nodes"]
        if cpus & set(parse_cpulist(node["cpus"]))
    }
    return nodes == mems and local(done)


def threads_fit(done: Done) -> bool:
    """No more compute threads than CPUs."""
    server = done.server
    busy = [
        each
        for each in done.after["threads"]
        if each["tgid"] == server["tgid"] and each["role"] == "compute"
    ]
    return 1 <= len(busy) <= len(parse_cpulist(server["allowed_cpus"]))


def policy_on_server(done: Done) -> bool:
    """The server has a memory policy now, and the report said whose had no effect."""
    return done.server["policy"] not in ("", "default", None) and "client" in done.said


def off_memory_only(done: Done) -> bool:
    """Nothing of the weights on a node without CPUs, and no CPU bound to it."""
    empty = [node["node"] for node in done.after["machine"]["nodes"] if not node["cpus"]]
    bound = any(f"--cpunodebind={node}" in done.script for node in empty)
    return not bound and all(done.weights.get(node, 0.0) < REMOTE for node in empty)


OUTCOMES: dict[str, tuple[Callable[[Done], bool], ...]] = {
    "S1": (spread_or_together,),
    "S2": (local,),
    "S3": (lambda done: "--membind=0" not in done.script,),
    "S4": (few_moves,),
    "S5": (cpuset_agrees,),
    "S6": (threads_fit,),
    "S7": (local, lambda done: "page cache" in done.said),
    "S8": (spread_or_together,),
    "S9": (policy_on_server, spread_or_together),
    "S14": (spread_or_together, lambda done: "numa_balancing" in done.said),
    "S15": (spread_or_together, lambda done: "iflag=nocache" not in done.script),
    "S16": (local,),
    "S17": (off_memory_only,),
    "S20-new": (spread_or_together,),
    "S20-old": (spread_or_together,),
}


def failed(scenario_id: str, done: Done) -> list[str]:
    """What of it the fix did not achieve, and the first cause if it is still there."""
    wanted = OUTCOMES.get(scenario_id, ())
    missed = [_name(check) for check in wanted if not check(done)]
    first = done.before["findings"][0]["cause"]
    if first in [finding["cause"] for finding in done.after["findings"]]:
        missed.append(f"{first} is still there")
    return missed


def _name(check: Callable[[Done], bool]) -> str:
    return (check.__doc__ or "what the report says or the script does").rstrip(".")
