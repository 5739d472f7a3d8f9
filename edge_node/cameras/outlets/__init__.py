"""Where what is said of cameras goes: MQTT, server-sent events, WebSockets, a webhook."""
