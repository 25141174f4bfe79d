"""Video files, clip shapes and pixel formats."""
