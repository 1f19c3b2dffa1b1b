"""What belongs to no generation: found, judged, moved out of the root, and mounted by every root's fstab."""
