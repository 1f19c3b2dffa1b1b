"""Two trees side by side: what differs, what moved, what clashes."""
