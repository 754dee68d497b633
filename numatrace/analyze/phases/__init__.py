"""What the server was doing when, told from the events alone."""
