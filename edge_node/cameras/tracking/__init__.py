"""Tracks: which box in one picture is which in the next. Pure; times are seconds, never frames."""
