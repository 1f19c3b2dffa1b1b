"""Unattended updates: sources, the rules by which a machine follows them, and what it tells of it."""
