"""What lies where, and when: mappings, regions, tensors, pages on nodes."""
