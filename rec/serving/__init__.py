"""Answers from a trained run without a cluster: artifacts, requests, batches and the web application."""
