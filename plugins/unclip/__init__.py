"""unCLIP: text to a CLIP picture embedding to a picture."""
