"""Runs: folders on disk, the process that trains, and who may use a device when. Knows no page."""
