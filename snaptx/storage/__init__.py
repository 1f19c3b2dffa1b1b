"""Where generations live: one Protocol, a backend per filesystem."""
