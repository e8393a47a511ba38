"""Figures from the records alone, each with its numbers beside it: ``svg``, ``png`` and ``csv``.

One module a kind of figure. Each has a function that takes a comparison (one experiment, one model) and gives back
pictures and, in words, what could not be drawn.
"""
