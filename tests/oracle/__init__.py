"""The exact yardstick: a QEMU plugin that counts every access, and what is held against it."""
