"""What a pool is: files of any format as batches of uids, texts and columns."""
