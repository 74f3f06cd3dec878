"""What each part of the preset `ours` is good for: one thing changed at a time, the budget kept."""
