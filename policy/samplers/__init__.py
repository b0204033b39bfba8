"""Other adaptive systems on the same cache: which rows of a video, of which streams, are worth computing.

Each is a file, written from its paper: network, loss, decision, cost and session.
"""
