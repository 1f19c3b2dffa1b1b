"""Read a payload, lay it over a tree, remember what the tree holds."""
