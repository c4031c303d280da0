"""Labelled rows: read, cleaned, split, reported (`prepare`), and a first look (`look`)."""
