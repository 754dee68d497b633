"""The BPF programs: compiled, attached, drained."""
