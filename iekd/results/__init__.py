"""What a finished run's numbers say: reports, statistics, tables. Knows no run folder."""
