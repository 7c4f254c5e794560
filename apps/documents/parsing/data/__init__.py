"""Tables, records, notebooks and source code as text."""
