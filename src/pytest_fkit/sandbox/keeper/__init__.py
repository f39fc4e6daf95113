"""The keeper: forks hosts, keeps the clock, waits and kills."""
