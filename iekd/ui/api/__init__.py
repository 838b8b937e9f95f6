"""The page for programs: its endpoints over HTTP and MCP."""
