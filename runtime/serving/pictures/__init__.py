"""From a picture's bytes to a tensor."""
