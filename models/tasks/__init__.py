"""What models learn to do: tasks on any backbone."""
