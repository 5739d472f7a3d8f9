"""Recording what matters: encoded video kept for some seconds, and clips of it cut around events."""
