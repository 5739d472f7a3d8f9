"""Where callers are: their addresses, what a GeoIP database says of these, and the round trips that they measured."""
