"""Pages and figures that show a run to a person."""
