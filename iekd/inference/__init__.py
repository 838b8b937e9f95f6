"""Trained models at work: predict, evaluate, compare."""
