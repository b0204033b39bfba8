"""Parts that networks of several families are made of."""
