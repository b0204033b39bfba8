"""Options searched for on a part of the training videos, with Optuna (`train-policy tune`)."""
