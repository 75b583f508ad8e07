"""Training by several processes: who starts them, here or on many machines. What they do: lab/training/team.py."""
