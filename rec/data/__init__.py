"""Frozen inputs: sources, texts, encoders, splits and the prepared data set they become."""
