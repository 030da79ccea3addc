"""Looking at what was built: `stats` describes text and sets, `verify` checks sets."""
