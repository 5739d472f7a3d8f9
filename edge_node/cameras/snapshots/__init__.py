"""The picture that an event began with."""
