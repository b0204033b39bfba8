"""Videos to feature-cache shards: each video decoded once, for every stream asked for."""

import os

# Decoders and the network share the cores. OpenMP's threads wait for each other by spinning, and where a decoder
# has taken one's core the others burn theirs until it is back: let them sleep. Read when torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
