"""The CPU's own memory samples and counters, through `perf`: tables, choice, sessions, parsers."""
