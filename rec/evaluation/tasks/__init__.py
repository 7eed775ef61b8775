"""One package per task, each with metrics on plain arrays and texts."""
