"""What needs videos or backbones beside the cache: sessions, run-policy, pictures of frames, seconds here.

The only part of `policy` that imports `extract`: `arguments` and `videos` at once, the others inside functions.
"""
