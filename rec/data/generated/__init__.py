"""Generated data with planted truth, as sources."""
