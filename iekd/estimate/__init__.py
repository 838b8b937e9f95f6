"""What a run will cost: time and memory, by arithmetic and by a short measurement."""
