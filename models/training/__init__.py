"""How models are trained: a recipe, the steps, and what a run shows, writes down and can resume from."""
