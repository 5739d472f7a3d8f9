"""Rollouts as pure state machines: a table for nodes, a table for the whole, no clock and no network."""
