"""Everything live: targets, BPF, placement, environment, the recording session."""
