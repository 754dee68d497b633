"""Latency and bandwidth from the CPUs of every node to the memory of every node, measured."""
