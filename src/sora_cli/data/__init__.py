"""Tables of videos and clips: made, cut, scored, captioned, filtered."""
