"""How good a trained model is: bounds on data and texts, quality of what it writes, benchmark tasks."""
