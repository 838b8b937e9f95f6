"""What a method is, and what of student and teacher it compares."""
