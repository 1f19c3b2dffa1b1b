"""A machine to try snaptx on: a Btrfs image laid out as a distribution has it."""
