"""numatrace: which threads wait on remote memory, for which weights, why, and what ends it."""

__version__ = "0.1.0"
