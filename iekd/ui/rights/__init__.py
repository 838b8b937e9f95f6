"""Who may see and do what on the page: limits, sign-in attempts, sessions, and paths that others must not see."""
