"""PDF: the text layer, its layout, and OCR of what is a picture."""
