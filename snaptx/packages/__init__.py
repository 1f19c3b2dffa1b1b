"""Package managers: what to call, and how to read what they say."""
