"""N-gram models with Kneser-Ney smoothing."""
