"""How fast this machine trains: the engine, its step part by part, its roofline, and a conventional loop beside it.

`measure.measure` is what `iekd bench` prints; `probe.probe` is a quick version whose result (`speeds.Speeds`) needs no
torch to be read.
"""
