"""Documents: unlabelled text, from a messy folder to training text."""
