"""Excludes all that was imported before it from the garbage collection with which each Trainer starts and ends.

The last import of a server from which processes are forked; in one of them a collection would also copy its memory.
"""

import gc

gc.collect()
gc.freeze()
