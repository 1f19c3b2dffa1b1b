"""Talk to people: one file per verb, and the parser that joins them."""
