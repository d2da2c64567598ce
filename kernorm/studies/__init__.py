"""Studies: arms by seeds, their records, verdicts and reports."""
