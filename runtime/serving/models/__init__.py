"""One model that serves: loaded, tested, warmed up, batched."""
