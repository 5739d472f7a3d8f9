"""HTTP, as server and as client."""
