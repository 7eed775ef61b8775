"""Tests of reading reviews and finding features."""
