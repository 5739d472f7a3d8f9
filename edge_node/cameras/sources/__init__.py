"""Where pictures come from: streams, files, folders, snapshots, a test pattern."""
