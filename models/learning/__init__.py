"""What models learn by: recipes, optimizers, schedules, losses."""
