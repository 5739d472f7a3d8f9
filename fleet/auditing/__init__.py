"""The audit log: all that was done to the fleet, in a chain of hashes, and proof that decisions follow from it."""
