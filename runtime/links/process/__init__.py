"""This process and its machine."""
