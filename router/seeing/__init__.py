"""What the router tells of each request besides the answer: a line in a log, spans of a trace."""
