"""The running system: what its processes use of which generation, and what is put under them."""
