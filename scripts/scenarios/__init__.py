"""Labelled situations set up for real, for fixtures and for the tests in the multi-node guest."""
