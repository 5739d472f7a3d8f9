"""Gates: does a new version do worse than the one that it replaces? Pure, by sequential tests with stated errors."""
