"""What users can say, and what it means: the table of options, its values, marks."""
