"""What a Python user calls: functions with plain arguments, results with tables, charts and a page."""
