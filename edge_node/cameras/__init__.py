"""Cameras: every stream on the box, only the doubtful frames off it."""
