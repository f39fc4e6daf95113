"""What users can say: the table of options, their values, marks."""
