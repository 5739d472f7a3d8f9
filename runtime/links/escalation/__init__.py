"""The holder of a request, and the cloud that it asks."""
