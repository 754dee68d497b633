"""A workload whose memory accesses are known, and what a recording of it says against that."""
