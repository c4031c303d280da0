"""File formats: read, check, write. Never imports torch."""
