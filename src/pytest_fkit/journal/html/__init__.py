"""The HTML report: what journals say, as values, and the one file that shows them."""
