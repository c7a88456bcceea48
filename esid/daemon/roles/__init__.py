"""What each child process of the daemon does, a module for each role: its `run` returns when it was told to stop."""
