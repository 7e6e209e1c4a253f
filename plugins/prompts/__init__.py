"""How each view hears the sentence."""
