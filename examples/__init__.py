"""Programs that show ropewalk on something real."""
