"""The page. Tabs call runs, compare and plan; nothing here trains, and nothing here imports torch by itself."""
