"""CommonCrawl to a pool: images of pages, and the texts that say what they show."""
