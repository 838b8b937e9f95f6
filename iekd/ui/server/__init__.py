"""Serves the page: headers, signing in, limits on what is sent, downloads."""
