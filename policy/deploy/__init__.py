"""What needs videos or backbones beside the cache: pictures of chosen frames, seconds on this machine.

The only part of `policy` that imports `extract`, and only when it is asked to work.
"""
