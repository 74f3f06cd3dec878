"""Streaming statistics of what a network's channels carry."""
