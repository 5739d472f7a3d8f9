"""Cameras that are none: real clips through GStreamer's RTSP server, which can be made to fail."""
