"""Which normalization, which kernel penalty, which batch size, and is the difference real? Answers with evidence."""
