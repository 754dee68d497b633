"""Readers of /proc and /sys, and the documents made of them."""
