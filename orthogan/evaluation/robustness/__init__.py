"""How well a classifier stands attacks and corruptions."""
