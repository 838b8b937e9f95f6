"""Networks. `catalog` knows their names and sizes without torch; `registry.build` makes one, `registry.register`
adds one.

Every classifier returns `Features(logits, stages, pre_activations, pooled)`, which is all that a method may look at.
"""
