"""Processes apart that read files, so that a hostile one harms nothing."""
