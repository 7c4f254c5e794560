"""ZIP containers: archives, books and exports."""
