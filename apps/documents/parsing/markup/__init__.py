"""HTML, Markdown, reStructuredText and XML."""
