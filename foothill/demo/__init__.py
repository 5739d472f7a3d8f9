"""The demo: real clients from all over the world, on one machine."""
