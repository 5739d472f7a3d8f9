"""What of a camera is shown to the cloud: which tracks are doubtful, which picture of them, and what was said."""
