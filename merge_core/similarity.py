"""How alike channels and layers of two networks are."""
