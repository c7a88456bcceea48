"""What each command does: `run(options, chosen)` gives its exit code. `esid.cli.main` imports the one that was typed."""
