"""The benchmark: what snaptx does against what a user would pick instead, as ratios of alternating rounds."""
