"""The pictures of the report, one file each. A `Plot` says what it shows, what it cannot show and why, and its numbers."""
