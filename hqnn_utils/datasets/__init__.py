"""The images: what is known of them, checked files, photographs and their features."""
