"""Simulators of what one machine does not have: distance between its processes."""
