"""From what a test process wrote to the reports that plugins and the controller get."""
