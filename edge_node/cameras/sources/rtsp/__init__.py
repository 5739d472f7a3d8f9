"""RTSP cameras that send H.264 or H.265, read without FFmpeg's demuxer.

A picture is whole when its last packet says so, not when the next one begins.
"""
