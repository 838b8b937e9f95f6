"""Training: stages, the step, and what makes it fast. Knows nothing of run folders or pages."""
