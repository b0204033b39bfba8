"""What trained methods say of videos, what it cost, and how good it is."""
