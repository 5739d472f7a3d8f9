"""Cameras over HTTP: what is there, what is said, what is seen, and a page to look at."""
