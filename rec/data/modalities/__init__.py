"""Texts of items by modality: what is known of an item, texts written from it, and whether it supports them."""
