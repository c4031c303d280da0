"""One file a format: bytes in, parts of text out. None of them opens a file or knows a path."""
