"""From a trace to a report: pure functions, no access to any machine."""

from numatrace.analyze.assemble import analyze_batches, analyze_trace

__all__ = ["analyze_batches", "analyze_trace"]
