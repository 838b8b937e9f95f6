"""How fast this machine trains: the engine, its step part by part, its roofline, and a conventional loop beside it.

`measure.measure` is what `iekd bench` prints. A quick version for the time estimate is `iekd.estimate.probe`.
"""
