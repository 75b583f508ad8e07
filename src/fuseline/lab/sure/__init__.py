"""How sure answers are: fitted on held-out rows, checked on others."""
