"""What each thread did, and what it is for."""
