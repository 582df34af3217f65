"""Objectives: what a backbone is asked to learn."""
