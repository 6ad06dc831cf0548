"""What an HTML page shows: its images, where they are and what the page says of them."""
