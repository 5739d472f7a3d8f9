"""Cameras on a node: what they cost, how many it holds, and what becomes of them when things break."""
