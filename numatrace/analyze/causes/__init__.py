"""The causes that numatrace knows, each in a module of its own, and how they are ranked."""

from numatrace.analyze.causes.ranking import CAUSES, Judged, judge, judge_one_node

__all__ = ["CAUSES", "Judged", "judge", "judge_one_node"]
