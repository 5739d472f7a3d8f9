"""Bundles: where they are kept here, and where they come from."""
