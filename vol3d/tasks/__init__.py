"""What a user asks for, one function each, over files. Nothing here prints: a Reporter is handed in."""
