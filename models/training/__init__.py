"""How models are trained: a recipe, the steps, what a run shows, and what it writes to resume."""
