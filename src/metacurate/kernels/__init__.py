"""Every compiled loop; each twin of plain Python is proved equal to it by tests."""
