"""Chapters as programs: their parameters, results, runs and figures."""
