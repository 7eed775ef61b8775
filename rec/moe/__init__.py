"""Mixture of experts: routing and balance."""
