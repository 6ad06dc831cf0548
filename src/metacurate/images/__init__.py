"""Images: downloaded, decoded, filtered, duplicates found."""
