"""Figures from the records alone, each as ``svg`` and ``png`` with its numbers as ``csv``.

One module per kind of figure. Each has a function that takes a comparison (one experiment, one model) and returns
pictures and a list of messages on what could not be drawn.
"""
