"""What may be asked of a model: ranking, sets, rating, writing."""
