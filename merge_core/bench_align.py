"""How fast networks are compared and aligned: as a program, because it needs torch."""
