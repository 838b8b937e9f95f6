"""Networks. `catalog` knows their names and sizes without torch; `build` makes one.

Every classifier returns `Features(logits, stages, pre_activations, pooled)`, which is all that a method may look at.
"""
