"""The plugins that come with sora, registered through the same entry points as anybody's."""
