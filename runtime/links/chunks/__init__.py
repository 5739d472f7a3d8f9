"""Contents in chunks over MQTT."""
