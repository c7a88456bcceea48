"""What each command does, a file for each kind; `esid.cli` imports the one that was typed."""
