"""Evaluation: what a network writes, and how right it is."""
