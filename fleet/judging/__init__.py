"""Gates: does a new version do worse than the one that it replaces? Pure, by sequential tests with stated errors.

Not connected yet: no node tells its counts, and `fleet/gates.py` judges audits alone.
"""
