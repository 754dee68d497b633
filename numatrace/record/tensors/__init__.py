"""Which tensor lies where: model files, and servers watched while they load."""
