"""Connectors tell what is in a folder, a bucket or a site, and what of it is new: no Django, no database."""
