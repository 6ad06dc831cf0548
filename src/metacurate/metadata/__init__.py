"""Metadata: built from its sources, stored, looked up."""
