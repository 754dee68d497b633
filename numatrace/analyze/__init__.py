"""From a trace to a report: pure functions, no access to any machine."""

from numatrace.analyze.assemble import analyze_batches, analyze_trace
from numatrace.analyze.narrow import Narrow

__all__ = ["Narrow", "analyze_batches", "analyze_trace"]
