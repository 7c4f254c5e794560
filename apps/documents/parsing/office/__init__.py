"""Word, PowerPoint and spreadsheets of today, and OpenDocument: XML in ZIP containers."""
