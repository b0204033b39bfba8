"""Fine-tuning: a backbone fitted to a labelled collection, as a classifier of single frames or clips.

Both papers' numbers rest on it: LiteEval's backbones are fine-tuned on the target videos (Sec. 4.1). What it
writes, RUN/weights.safetensors, is what `batch-extract --weights` takes.
"""
