"""`foothill demo-camera`: a street over RTSP into a box, with nothing but what package registries have."""
