"""Causal language models of transformers, small ones built here or pretrained ones, with gated experts in them."""
