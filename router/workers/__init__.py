"""A router of several processes: workers that answer, and one that speaks for all of them."""
