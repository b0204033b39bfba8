"""What needs videos or backbones beside the cache: sessions, pictures of frames, seconds on this machine.

The only part of `policy` that imports `extract`, and it does so inside functions.
"""
