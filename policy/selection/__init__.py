"""Per video, which model of a pool is worth running (Conditional Model Selection, Sec. 3)."""
