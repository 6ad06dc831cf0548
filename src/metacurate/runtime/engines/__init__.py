"""What runs the shards of a stage: processes of this machine, or a Ray cluster."""
