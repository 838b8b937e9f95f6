"""Where runs are started and stopped: the Launcher protocol and its implementations."""
