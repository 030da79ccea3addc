"""Classes, several classes at once, or a number, for texts and pairs of texts of a person's own."""
