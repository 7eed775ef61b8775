"""Cohorts of hospital visits: what the readers of clinical databases share."""
