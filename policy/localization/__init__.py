"""Actions found in time by models trained on labels of whole videos (Conditional Model Selection, Sec. 3.3)."""
