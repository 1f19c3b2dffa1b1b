"""What decides which generation boots: one Protocol, a backend per loader."""
