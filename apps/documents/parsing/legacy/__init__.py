"""The Office formats of 1997 to 2003, and RTF."""
