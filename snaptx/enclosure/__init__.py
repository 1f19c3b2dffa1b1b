"""A command inside a generation: its processes, its view of the machine."""
