"""Thin edges to frameworks' own ways of training; each module imports its framework."""
