"""Access samples from the CPUs' clocks, and what they may cost."""
