"""Stored runs to tidy frames and plain sentences: what pages and charts show (no torch)."""
