"""Measurements of memoryd: quality on reference data, speed as ratios of one run."""
