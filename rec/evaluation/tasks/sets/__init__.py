"""Sets: a visit is answered with a set of codes."""
