"""Tools that make the files in `weights/`. Nothing here is needed to generate videos."""
