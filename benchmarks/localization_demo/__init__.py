"""The demo of localization: videos in which a place suggests an action and motion shows it, and the way on."""
