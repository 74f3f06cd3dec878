"""The `netweld` command: merge, watch, resume and export from a terminal (never loads torch)."""

from merge_core.cli.commands import main

__all__ = ["main"]
