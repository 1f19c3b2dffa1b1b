"""Generations as ZFS boot environments."""
