"""From images to a registered image classifier: six stages and what flows between them."""
