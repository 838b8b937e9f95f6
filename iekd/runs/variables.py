"""Environment variables that command and page set, and that each process that trains a run inherits."""

CPU_SLOTS = "IEKD_CPU_SLOTS"  # how many runs may train on the CPU at a time (slots.py)
NPROC = "IEKD_NPROC"  # how many processes of this machine train a run (processes.py)
COPY_TO = "IEKD_COPY_TO"  # where a copy of each run is kept (copies.py)
