"""What is made of pictures that a model has seen: tracks, labels, vectors."""
