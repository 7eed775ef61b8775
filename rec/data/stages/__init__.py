"""The steps from foreign tables to a prepared data set."""
