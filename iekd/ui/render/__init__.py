"""Data to HTML: charts, results, words."""
