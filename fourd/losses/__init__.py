"""What a reconstruction keeps small: differences of pictures, loss of shape, roughness."""
