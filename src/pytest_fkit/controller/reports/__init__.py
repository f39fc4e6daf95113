"""What becomes of reports: verdicts, terminal, JUnit, journal."""
