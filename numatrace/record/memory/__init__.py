"""The mappings of followed processes, and the nodes of their pages."""
